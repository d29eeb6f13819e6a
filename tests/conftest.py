"""What tests share: one real broker and registry a run, and a PostgreSQL server when there can be one.

A test that uses ``bus`` (or ``department``, …) is marked ``broker``, and one that
uses ``postgres_url`` is marked ``postgres``; so ``-m "not broker"`` leaves out
whatever needs a broker, with nothing to remember.

Under pytest-xdist use ``--dist loadgroup``: all broker tests then run on one
worker and share one broker. Any other distribution works too, with a broker for
each worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from govbus_console.cluster import Cluster
from govbus_console.embedded import EmbeddedBus, Home
from support.broker import Department, RunningBus, unique_name, warm_up
from support.postgres import NoPostgresError, postgres_server

_NEEDS_BROKER = {"bus", "soiled_bus"}
_NEEDS_POSTGRES = {"postgres_url"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--leak-cases",
        type=int,
        default=2_000,
        help="how many cases the leak proof kit runs (tests/leaks); 100000 take the better part of an hour",
    )
    parser.addoption(
        "--leak-seed",
        type=int,
        default=0,
        help="what the leak proof kit draws its cases from; printed with them",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & _NEEDS_BROKER:
            item.add_marker(pytest.mark.broker)
        if fixtures & _NEEDS_POSTGRES:
            item.add_marker(pytest.mark.postgres)
        if config.pluginmanager.hasplugin("xdist") and item.get_closest_marker("broker"):
            item.add_marker(pytest.mark.xdist_group("broker"))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Settings of whoever runs the tests must not decide where the tests write."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("GOVBUS_") and name != "GOVBUS_REQUIRE_COMPILED":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBus]:
    """The broker and the registry of this run, started when the first test asks."""
    # A space and letters beyond ASCII, because users have such directories.
    home = Home(tmp_path_factory.mktemp("总线 bus"))
    with EmbeddedBus(home) as embedded:
        warm_up(embedded.broker_settings().client())
        yield RunningBus(embedded=embedded, cluster=Cluster(embedded.broker_settings().client()))


@pytest.fixture(scope="session")
def soiled_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBus]:
    """Another broker and registry, for tests that put on the bus's own topics what does not belong there."""
    with EmbeddedBus(Home(tmp_path_factory.mktemp("soiled bus"))) as embedded:
        warm_up(embedded.broker_settings().client())
        yield RunningBus(embedded=embedded, cluster=Cluster(embedded.broker_settings().client()))


@pytest.fixture(scope="session")
def cluster(bus: RunningBus) -> Cluster:
    """The control side's hands on the broker."""
    return bus.cluster


@pytest.fixture(scope="session")
def admin_client(bus: RunningBus) -> AdminClient:
    """Kafka's own admin client, with every right: to look behind what govbus says."""
    return AdminClient(bus.client())


@pytest.fixture
def department(bus: RunningBus) -> Callable[[str], Department]:
    """Make departments: ``department("stats")`` gives one named ``stats-…``."""
    return bus.department


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make names that no other test uses: ``unique("divisions")``."""
    return unique_name


@pytest.fixture(scope="session")
def _postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres") / "postgres.log") as url:
        yield url


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A SQLAlchemy address of an empty PostgreSQL database of this test's own."""
    try:
        server: str = request.getfixturevalue("_postgres_server")
    except NoPostgresError as reason:
        pytest.skip(str(reason))
    name = unique_name("test").replace("-", "_")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.replace("postgresql://", "postgresql+psycopg://").rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
