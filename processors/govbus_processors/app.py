"""One exchange worker: a Faust app wired from the intake, the agent and the directory.

Record batches travel on a Faust channel from the intake's thread to the
exchange agent, so the agent is an ordinary Faust agent over batches instead of
single events. Faust's own consumer serves what is rare: here, the workers'
reports, from which each worker knows how many are alive.

The agent never lets an exception out: Faust would acknowledge the batch. What
goes wrong is put into the batch's outcome, and the intake decides.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust
from mode import Service

from govbus import observe, topics
from govbus.codec import Registry
from govbus.errors import BusError, ConfigurationError, FatalError
from govbus.settings import (
    BrokerSettings,
    ExchangeSettings,
    ProcessSettings,
    RegistrySettings,
    read_secret,
)
from govbus_processors.checkpoint import Checkpoints
from govbus_processors.directory import Directory
from govbus_processors.exchange import Exchange, SchemaBook
from govbus_processors.intake import Intake
from govbus_processors.membership import Membership

if TYPE_CHECKING:
    from govbus_processors.batch import Batch

_log = logging.getLogger(__name__)
_WATCH_SECONDS = 0.2
EXIT_STUCK = 1
"""As after any other failure: a supervisor starts the worker again."""

_ALIVE_SECONDS = 5.0


class ExchangeWorker:
    """Everything that one worker process holds."""

    def __init__(
        self,
        *,
        worker: str,
        broker: BrokerSettings,
        registry: RegistrySettings,
        exchange: ExchangeSettings,
        state: Path,
    ) -> None:
        self.name = worker
        self.failure: FatalError | None = None
        self._registry = Registry(registry.url)
        secret = exchange.pseudonym_secret_file
        self._schemas = SchemaBook(self._registry, wait_seconds=exchange.schema_wait_seconds)
        membership = Membership()
        self.directory = Directory(
            broker,
            self._registry,
            lease_seconds=exchange.lease_seconds,
            pseudonyms=secret is not None,
        )
        self._exchange = Exchange(
            worker=worker,
            schemas=self._schemas,
            membership=membership,
            pseudonym_secret=read_secret(secret).encode() if secret is not None else None,
        )
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.app = _faust_app(worker, broker, state)
        self._batches = self.app.channel(maxsize=1)
        self.app.agent(self._batches, name="govbus.exchange")(self._exchange_batches)
        reports = self.app.topic(topics.WORKERS, key_serializer="raw", value_serializer="raw")
        self.app.agent(reports, name="govbus.reports")(self._count_workers)
        self.intake = Intake(
            worker=worker,
            broker=broker,
            registry=self._registry,
            settings=exchange,
            directory=self.directory,
            membership=membership,
            checkpoints=Checkpoints(state / "keys"),
            submit=self._submit,
        )
        self._alive: dict[bytes, float] = {}
        self.app.service(_service_of(self))

    # ---- from the intake's thread to the agent and back ----

    def _submit(self, batch: Batch) -> None:
        asyncio.run_coroutine_threadsafe(self._batches.put(batch), self.app.loop)

    async def _exchange_batches(self, batches: Any) -> None:
        async for batch in batches:
            try:
                outcome = self._exchange.process(batch)
                while outcome.waiting and await self._fetch_schemas():
                    self._exchange.rollback()
                    outcome = self._exchange.process(batch)
                batch.outcome.set_result(outcome)
            except Exception as error:
                self._exchange.rollback()
                _log.exception("a batch could not be worked out", extra={"worker": self.name})
                batch.outcome.set_exception(
                    error if isinstance(error, BusError) else FatalError("the exchange agent failed")
                )

    async def _fetch_schemas(self) -> bool:
        return await asyncio.to_thread(self._schemas.fetch)

    async def _count_workers(self, reports: Any) -> None:
        async for event in reports.events():
            name = event.key or b""
            try:
                record = await asyncio.to_thread(self._registry.decode, event.value)
            except BusError as error:
                _log.warning("a worker's report cannot be read", extra={"code": error.code})
                continue
            if record["stopping"]:
                self._alive.pop(name, None)
            else:
                self._alive[name] = time.monotonic()
            oldest = time.monotonic() - _ALIVE_SECONDS
            observe.exchange_workers.set(sum(1 for seen in self._alive.values() if seen >= oldest))

    async def watch(self, service: Service) -> None:
        """End the worker when one of its threads has ended for good."""
        while not service.should_stop:
            failure = self.intake.failure or self.directory.failure
            if failure is not None:
                self.failure = failure
                return
            if self.intake.stuck():
                # Not by way of a clean stop: that would wait for the thread that is held.
                _log.error("a call of the Kafka client does not end", extra={"worker": self.name})
                logging.shutdown()
                os._exit(EXIT_STUCK)
            await service.sleep(_WATCH_SECONDS)


def _service_of(worker: ExchangeWorker) -> type[Service]:
    """Faust starts services by class; this one starts and stops the worker's threads."""

    class ExchangeThreads(Service):
        async def on_start(self) -> None:
            worker.directory.start()
            worker.intake.start()

        async def on_stop(self) -> None:
            # In this order: the last report is sent under a policy that is still being confirmed.
            await asyncio.to_thread(worker.intake.stop)
            await asyncio.to_thread(worker.directory.stop)

        @Service.task
        async def _watch(self) -> None:
            await worker.watch(self)

    return ExchangeThreads


def _faust_app(worker: str, broker: BrokerSettings, state: Path) -> faust.App:
    options: dict[str, Any] = {}
    if broker.security_protocol.startswith("SASL"):
        if broker.password_file is None:
            raise ConfigurationError("GOVBUS_BROKER_PASSWORD_FILE must be set")
        context = None
        if broker.security_protocol == "SASL_SSL":
            import ssl

            context = ssl.create_default_context(cafile=broker.ca_file and str(broker.ca_file))
        # Without a context Faust speaks SASL_PLAINTEXT, which the setting must then have asked for.
        options["broker_credentials"] = faust.SASLCredentials(
            username=broker.user,
            password=read_secret(broker.password_file),
            mechanism=broker.mechanism,
            ssl_context=context,
        )
    elif broker.security_protocol == "SSL":
        import ssl

        context = ssl.create_default_context(cafile=broker.ca_file and str(broker.ca_file))
        if broker.certificate_file is not None:
            context.load_cert_chain(broker.certificate_file, broker.key_file)
        options["broker_credentials"] = faust.SSLCredentials(context=context)
    return faust.App(
        # A group of its own per worker: each wants to see every report.
        f"{topics.EXCHANGE_GROUP}.faust.{worker}",
        broker=";".join(f"kafka://{host}" for host in broker.bootstrap.split(",")),
        autodiscover=False,
        datadir=state / "faust",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="latest",
        web_enabled=False,
        stream_wait_empty=False,
        # As for the intake's group. A worker that was killed is still a member when it starts again, and the
        # group waits for it so long: with Faust's default, a minute in which nothing is delivered.
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        **options,
    )


def run(
    worker: str,
    broker: BrokerSettings,
    registry: RegistrySettings,
    process: ProcessSettings,
    exchange: ExchangeSettings | None = None,
) -> int:
    """Run one exchange worker until SIGTERM or SIGINT, and return the process's exit code.

    Raises:
        FatalError: the worker cannot go on; a supervisor may start it again.
    """
    observe.serve_metrics(process.metrics_port, process=f"exchange-{worker}", host=process.metrics_host)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    held = ExchangeWorker(
        worker=worker,
        broker=broker,
        registry=registry,
        exchange=exchange or ExchangeSettings(),
        state=process.home / "state" / f"exchange-{worker}",
    )
    loop.run_until_complete(_serve(held, loop))
    if held.failure is not None:
        raise held.failure
    return 0


async def _serve(held: ExchangeWorker, loop: asyncio.AbstractEventLoop) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = held.app
    app.finalize()
    await app.start()
    while not stop.is_set() and not app.should_stop and held.failure is None:
        try:
            await asyncio.wait_for(stop.wait(), _WATCH_SECONDS)
        except TimeoutError:
            continue
    await app.stop()
