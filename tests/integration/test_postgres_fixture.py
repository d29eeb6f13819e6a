"""The PostgreSQL that tests get is a real one, and each test has a database to itself."""

from __future__ import annotations

from sqlalchemy import create_engine, text


def test_a_test_gets_an_empty_postgresql_database_that_keeps_chinese_text(postgres_url: str) -> None:
    engine = create_engine(postgres_url)

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE divisions (code text PRIMARY KEY, name text)"))
        connection.execute(text("INSERT INTO divisions VALUES ('3308', '衢州市')"))
        name = connection.execute(text("SELECT name FROM divisions")).scalar_one()
        tables = connection.execute(
            text("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        ).scalar_one()
    engine.dispose()

    assert (name, tables) == ("衢州市", 1)
