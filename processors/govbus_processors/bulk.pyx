# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Records from and to librdkafka by the batch, without a Python object for each.

confluent-kafka makes an object of every record that it reads and parses the
arguments of a call for every record that it writes: most of what a
worker's thread did. Its clients are used here too, for everything that happens
once for a batch. What happens once for a record is done with the C library
underneath, by functions of its public interface: take an event from the
consumer's queue, give a record to the producer.

Three things have to be known for that, and are looked at before anything is done:

1. where the library is. confluent-kafka's own module is linked with it, so its
   functions are looked up there, and are those that its clients use;
2. which handle belongs to a client. It is the first thing in a client's object
   after Python's own header (``Handle`` in confluent-kafka's source), in every
   version of ``KNOWN``. The library is asked whether its name and kind are the client's;
3. how the three structures of ``rdkafka.h`` that are used look. They are part of the
   library's ABI.

Where one of them is not as expected, :func:`usable` says so, and the objects are
used: the same, slower (:mod:`govbus_processors.polling`, :mod:`govbus_processors.queueing`).

The thread that calls :meth:`Inlet.fetch` is the one in which rebalances happen, as
with the client's own ``poll``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from govbus_processors.batch import Output

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* symbol)
    int RTLD_LAZY
    int RTLD_NOLOAD

KNOWN = ((2, 12), (2, 16))
"""The first and the last version of confluent-kafka whose clients begin with their handle for certain."""

# ---- what rdkafka.h says ----

cdef struct rd_kafka_message:
    int err
    void* rkt
    int32_t partition
    char* payload
    size_t len
    char* key
    size_t key_len
    int64_t offset
    void* private

cdef struct rd_kafka_topic_partition:
    char* topic
    int32_t partition
    int64_t offset
    void* metadata
    size_t metadata_size
    void* opaque
    int err
    void* private

cdef struct rd_kafka_topic_partition_list:
    int cnt
    int size
    rd_kafka_topic_partition* elems

cdef struct memory:
    const void* ptr
    size_t size

cdef union vu_value:
    void* rkt
    int i
    int32_t i32
    int64_t i64
    memory mem
    char pad[64]

cdef struct rd_kafka_vu:
    int vtype
    vu_value u

cdef enum:
    VTYPE_RKT = 2
    VTYPE_PARTITION = 3
    VTYPE_VALUE = 4
    VTYPE_KEY = 5
    VTYPE_MSGFLAGS = 7
    VTYPE_TIMESTAMP = 8
    MSG_F_COPY = 2
    EVENT_DELIVERY = 0x1
    EVENT_FETCH = 0x2
    EVENT_REBALANCE = 0x10
    ERR_ASSIGN_PARTITIONS = -175
    ERR_QUEUE_FULL = -184
    KIND_PRODUCER = 0
    KIND_CONSUMER = 1

ctypedef void* (*queue_poll_f)(void* queue, int timeout_ms) noexcept nogil
ctypedef void* (*queue_get_f)(void* rk) noexcept nogil
ctypedef void (*destroy_f)(void* thing) noexcept nogil
ctypedef rd_kafka_message* (*event_message_next_f)(void* event) noexcept nogil
ctypedef rd_kafka_topic_partition_list* (*event_partitions_f)(void* event) noexcept nogil
ctypedef int64_t (*message_timestamp_f)(rd_kafka_message* message, int* kind) noexcept nogil
ctypedef void* (*topic_new_f)(void* rk, const char* name, void* conf) noexcept nogil
ctypedef const char* (*text_f)(void* thing) noexcept nogil
ctypedef int (*number_f)(void* rk) noexcept nogil
ctypedef int (*last_error_f)() noexcept nogil
ctypedef void* (*produceva_f)(void* rk, rd_kafka_vu* vus, size_t count) noexcept nogil
ctypedef int (*error_code_f)(void* error) noexcept nogil

cdef queue_poll_f queue_poll = NULL
cdef queue_get_f queue_get_consumer = NULL
cdef destroy_f queue_destroy = NULL
cdef number_f event_type = NULL
cdef number_f event_error = NULL
cdef number_f event_error_is_fatal = NULL
cdef event_message_next_f event_message_next = NULL
cdef event_partitions_f event_partitions = NULL
cdef destroy_f event_destroy = NULL
cdef message_timestamp_f message_timestamp = NULL
cdef topic_new_f topic_new = NULL
cdef destroy_f topic_destroy = NULL
cdef text_f topic_name = NULL
cdef text_f client_name = NULL
cdef number_f client_kind = NULL
cdef last_error_f last_error = NULL
cdef produceva_f produceva = NULL
cdef error_code_f error_code = NULL
cdef destroy_f error_destroy = NULL
cdef queue_get_f queue_get_main = NULL
cdef number_f outq_len = NULL


cdef void* _function(void* library, const char* name) except NULL:
    cdef void* found = dlsym(library, name)
    if found == NULL:
        raise LookupError("the library lacks a function")
    return found


cdef int _look_up() except -1:
    """Find the library's functions, or raise LookupError."""
    global queue_poll, queue_get_consumer, queue_destroy, event_type, event_error, event_error_is_fatal
    global event_message_next, event_partitions, event_destroy, message_timestamp, topic_new, topic_destroy
    global topic_name, client_name, client_kind, last_error, produceva, error_code, error_destroy
    global queue_get_main, outq_len
    path = confluent_kafka.cimpl.__file__.encode()
    cdef void* library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)
    if library == NULL:
        raise LookupError("the client's module is not there")
    queue_poll = <queue_poll_f> _function(library, b"rd_kafka_queue_poll")
    queue_get_consumer = <queue_get_f> _function(library, b"rd_kafka_queue_get_consumer")
    queue_destroy = <destroy_f> _function(library, b"rd_kafka_queue_destroy")
    event_type = <number_f> _function(library, b"rd_kafka_event_type")
    event_error = <number_f> _function(library, b"rd_kafka_event_error")
    event_error_is_fatal = <number_f> _function(library, b"rd_kafka_event_error_is_fatal")
    event_message_next = <event_message_next_f> _function(library, b"rd_kafka_event_message_next")
    event_partitions = <event_partitions_f> _function(library, b"rd_kafka_event_topic_partition_list")
    event_destroy = <destroy_f> _function(library, b"rd_kafka_event_destroy")
    message_timestamp = <message_timestamp_f> _function(library, b"rd_kafka_message_timestamp")
    topic_new = <topic_new_f> _function(library, b"rd_kafka_topic_new")
    topic_destroy = <destroy_f> _function(library, b"rd_kafka_topic_destroy")
    topic_name = <text_f> _function(library, b"rd_kafka_topic_name")
    client_name = <text_f> _function(library, b"rd_kafka_name")
    client_kind = <number_f> _function(library, b"rd_kafka_type")
    last_error = <last_error_f> _function(library, b"rd_kafka_last_error")
    produceva = <produceva_f> _function(library, b"rd_kafka_produceva")
    error_code = <error_code_f> _function(library, b"rd_kafka_error_code")
    error_destroy = <destroy_f> _function(library, b"rd_kafka_error_destroy")
    queue_get_main = <queue_get_f> _function(library, b"rd_kafka_queue_get_main")
    outq_len = <number_f> _function(library, b"rd_kafka_outq_len")
    return 0


cdef bint _found = True
try:
    _look_up()
except LookupError:
    _found = False


def usable(client):
    """Whether records may be taken from, or given to, this client by the batch.

    Args:
        client: a consumer or a producer of confluent-kafka; anything else is not usable.
    """
    if not _found or type(client) not in (Consumer, Producer):
        return False
    version = tuple([int(part) for part in confluent_kafka.version().split(".")[:2]])
    if not KNOWN[0] <= version <= KNOWN[1]:
        return False
    cdef void* rk = _handle(client)
    cdef bint consumer = type(client) is Consumer
    if rk == NULL or client_kind(rk) != (KIND_CONSUMER if consumer else KIND_PRODUCER):
        return False
    return (b"#consumer-" if consumer else b"#producer-") in <bytes> client_name(rk)


cdef void* _handle(object client):
    return (<void**> (<char*> <PyObject*> client + sizeof(PyObject)))[0]


# ---- records and deliveries ----

cdef class Pack:
    """Keys and values one after another in one piece of memory, and where each is."""

    # All of it begins as nothing: an extension type's memory is zeroed.

    def __dealloc__(self):
        free(self.data)
        free(self.entries)

    def __len__(self):
        return self.count

    cdef Entry* grow(self, Py_ssize_t size) noexcept nogil:
        """Make one entry more, with room for so many bytes; NULL when there is no memory."""
        cdef Py_ssize_t wanted
        cdef void* larger
        if self.count == self.places:
            wanted = self.places * 2 if self.places else 256
            larger = realloc(self.entries, wanted * sizeof(Entry))
            if larger == NULL:
                return NULL
            self.entries = <Entry*> larger
            self.places = wanted
        # One byte more than is needed: what is empty has to be somewhere, or it would be taken for nothing.
        if self.used + size >= self.room:
            wanted = self.room * 2 if self.room else 32_768
            while wanted <= self.used + size:
                wanted *= 2
            larger = realloc(self.data, wanted)
            if larger == NULL:
                return NULL
            self.data = <char*> larger
            self.room = wanted
        cdef Entry* entry = self.entries + self.count
        entry.at = self.used
        self.used += size
        self.count += 1
        return entry

    cdef int append(self, key, value, int64_t number, int64_t timestamp) except -1:
        """Append what is in two bytes objects, each of which may be None."""
        cdef const char* key_at = NULL
        cdef const char* value_at = NULL
        cdef Py_ssize_t key_size = -1
        cdef Py_ssize_t value_size = -1
        if key is not None:
            key_at = PyBytes_AS_STRING(<bytes?> key)
            key_size = PyBytes_GET_SIZE(key)
        if value is not None:
            value_at = PyBytes_AS_STRING(<bytes?> value)
            value_size = PyBytes_GET_SIZE(value)
        if key_size > 0x7FFFFFFF or value_size > 0x7FFFFFFF:
            raise OverflowError("no record is so large")
        if not self.copy(key_at, key_size, value_at, value_size, number, timestamp):
            raise MemoryError("no memory for a record")
        return 0

    cdef bint copy(
        self,
        const char* key,
        Py_ssize_t key_size,
        const char* value,
        Py_ssize_t value_size,
        int64_t number,
        int64_t timestamp,
    ) noexcept nogil:
        """Append what is somewhere else; a size of -1 is none. False when there is no memory."""
        cdef Py_ssize_t first = key_size if key_size > 0 else 0
        cdef Py_ssize_t second = value_size if value_size > 0 else 0
        cdef Entry* entry = self.grow(first + second)
        if entry == NULL:
            return False
        entry.number = number
        entry.timestamp = timestamp
        entry.key_size = <int32_t> key_size
        entry.value_size = <int32_t> value_size
        if first:
            memcpy(self.data + entry.at, key, first)
        if second:
            memcpy(self.data + entry.at + first, value, second)
        return True

    cdef Py_ssize_t checked(self, Py_ssize_t index) except -1:
        if index < 0:
            index += self.count
        if index < 0 or index >= self.count:
            raise IndexError("there are not so many")
        return index

    cdef object key_of(self, Py_ssize_t index):
        cdef Entry* entry = self.entries + index
        if entry.key_size < 0:
            return None
        return PyBytes_FromStringAndSize(self.data + entry.at, entry.key_size)

    cdef object value_of(self, Py_ssize_t index):
        cdef Entry* entry = self.entries + index
        if entry.value_size < 0:
            return None
        return PyBytes_FromStringAndSize(
            self.data + entry.at + (entry.key_size if entry.key_size > 0 else 0), entry.value_size
        )


cdef class Record:
    """One record, with the methods of confluent-kafka's messages that the exchange uses."""

    cdef Records _records
    cdef Py_ssize_t _index

    def topic(self):
        """The topic that it was read from."""
        return self._records.topic

    def partition(self):
        """Its partition."""
        return self._records.partition

    def offset(self):
        """Its offset."""
        return self._records.entries[self._index].number

    def timestamp(self):
        """As messages have it: a kind, which is always 1 here, and milliseconds."""
        return 1, self._records.entries[self._index].timestamp

    def key(self):
        """Its key, or None."""
        return self._records.key_of(self._index)

    def value(self):
        """Its value, or None."""
        return self._records.value_of(self._index)


cdef class Records(Pack):
    """Consecutive records of one partition: a sequence of :class:`Record`."""

    def __init__(self, str topic, int partition):
        self.topic = topic
        self.partition = partition

    def add(self, key, value, int64_t offset, int64_t timestamp):
        """Append a record, as :meth:`Inlet.fetch` does with what it reads."""
        self.append(key, value, offset, timestamp)

    def __getitem__(self, Py_ssize_t index):
        cdef Record record = Record.__new__(Record)
        record._records = self
        record._index = self.checked(index)
        return record


cdef class Outputs(Pack):
    """Deliveries to one topic: a sequence of :class:`~govbus_processors.batch.Output`."""

    @staticmethod
    def of(outputs):
        """Pack what stands in any iterable of key, value, partition and timestamp."""
        packed = Outputs()
        for key, value, partition, timestamp in outputs:
            packed.add(key, value, partition, timestamp)
        return packed

    cpdef int add(self, object key, object value, int partition, int64_t timestamp) except -1:
        """Append a delivery.

        Args:
            key: bytes or None.
            value: bytes; None for a tombstone.
            partition: to write it to.
            timestamp: milliseconds; 0 for the time of writing.
        """
        return self.append(key, value, partition, timestamp)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [_output(self, number) for number in range(*index.indices(self.count))]
        return _output(self, self.checked(index))

    def __iter__(self):
        cdef Py_ssize_t index
        for index in range(self.count):
            yield _output(self, index)


cdef object _output(Outputs outputs, Py_ssize_t index):
    cdef Entry* entry = outputs.entries + index
    return Output(outputs.key_of(index), outputs.value_of(index), entry.number, entry.timestamp)


# ---- reading ----

cdef double _monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double> now.tv_sec + <double> now.tv_nsec / 1e9


cdef class Inlet:
    """Records of a consumer's partitions. Used by one thread.

    Nothing else may take records from the consumer meanwhile. Everything but reading goes on with the
    consumer itself; it is closed after the inlet.
    """

    cdef object _consumer
    cdef object _on_assign
    cdef object _on_revoke
    cdef void* _queue
    cdef void* _event
    cdef rd_kafka_message* _message
    cdef int _fault

    def __init__(self, consumer, *, on_assign, on_revoke):
        if not usable(consumer) or type(consumer) is not Consumer:
            raise TypeError("not a consumer whose handle is known")
        self._consumer = consumer
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._queue = queue_get_consumer(_handle(consumer))

    def close(self):
        """Let go of the consumer's queue."""
        if self._queue != NULL:
            queue_destroy(self._queue)
            self._queue = NULL

    def fetch(self, double wait, double fill, Py_ssize_t limit):
        """Wait so long for a first record, and so long for more; return them and what the broker complains of.

        A rebalance ends it: its callback is called when the records before it have been taken.

        Args:
            wait: seconds; 0 takes what is there.
            fill: seconds, from the first record on.
            limit: how many records at most.

        Returns:
            Records by topic and partition, and errors as :class:`confluent_kafka.KafkaError`.
        """
        if self._queue == NULL:
            raise ValueError("the inlet is closed")
        cdef dict found = {}
        cdef list faults = []
        cdef Records into = None
        cdef double until = _monotonic() + wait
        cdef bint begun = False
        while limit > 0:
            if self._event == NULL:
                with nogil:
                    self._next(until)
                if self._event == NULL:
                    break
            if not begun:
                begun = True
                until = _monotonic() + fill
            if self._message != NULL:
                into = self._records(found)
                with nogil:
                    limit = self._take(into, limit, until)
                if limit < 0:
                    raise MemoryError("no memory for a batch")
            elif event_type(self._event) == EVENT_REBALANCE:
                self._rebalance()
                break
            else:
                if self._fault:
                    faults.append(KafkaError(self._fault, fatal=bool(event_error_is_fatal(self._event))))
                self._done()
        return found, faults

    cdef Records _records(self, dict found):
        """Where the message at hand belongs."""
        place = ((<bytes> topic_name(self._message.rkt)).decode(), self._message.partition)
        into = found.get(place)
        if into is None:
            into = found[place] = Records(place[0], place[1])
        return into

    cdef void _next(self, double until) noexcept nogil:
        """Take the next event, if there is one before the time, and the message or the error in it."""
        cdef double left
        self._message = NULL
        self._fault = 0
        self._event = queue_poll(self._queue, 0)
        while self._event == NULL:
            left = until - _monotonic()
            if left <= 0:
                return
            self._event = queue_poll(self._queue, <int> (left * 1_000) + 1)
        if event_type(self._event) == EVENT_FETCH:
            self._message = event_message_next(self._event)
            if self._message != NULL and self._message.err:
                self._fault = self._message.err
                self._message = NULL
        else:
            self._fault = event_error(self._event)

    cdef void _done(self) noexcept nogil:
        event_destroy(self._event)
        self._event = NULL
        self._message = NULL

    cdef Py_ssize_t _take(self, Records into, Py_ssize_t left, double until) noexcept nogil:
        """Take the message at hand and those that follow it in its partition; return how many more may be.

        The first event that is something else stays at hand. -1 when there is no memory.
        """
        cdef rd_kafka_message* message = self._message
        cdef void* rkt = message.rkt
        cdef int32_t partition = message.partition
        while True:
            if not into.copy(
                message.key,
                <Py_ssize_t> message.key_len if message.key != NULL else -1,
                message.payload,
                <Py_ssize_t> message.len if message.payload != NULL else -1,
                message.offset,
                message_timestamp(message, NULL),
            ):
                return -1
            self._done()
            left -= 1
            if left == 0:
                return 0
            self._next(until)
            message = self._message
            if message == NULL or message.rkt != rkt or message.partition != partition:
                return left

    cdef object _rebalance(self):
        cdef rd_kafka_topic_partition_list* list_ = event_partitions(self._event)
        cdef int index
        partitions = []
        if list_ != NULL:
            for index in range(list_.cnt):
                topic = (<bytes> list_.elems[index].topic).decode()
                partitions.append(TopicPartition(topic, list_.elems[index].partition))
        assigned = event_error(self._event) == ERR_ASSIGN_PARTITIONS
        self._done()
        if assigned:
            self._on_assign(self._consumer, partitions)
        else:
            self._on_revoke(self._consumer, partitions)


# ---- writing ----

cdef class Outlet:
    """A producer's queue. Used by one thread.

    What becomes of the records is told by the library in a queue of its own. The producer looks there too
    when it is polled or flushed, and forgets what nobody asked it to tell; so whoever wants to know
    (:attr:`failure`) lets the outlet wait instead.
    """

    cdef object _producer
    cdef void* _rk
    cdef void* _reports
    cdef int _failed

    def __init__(self, producer):
        if not usable(producer) or type(producer) is not Producer:
            raise TypeError("not a producer whose handle is known")
        self._producer = producer
        self._rk = _handle(producer)
        # Kept as long as the producer: it is never closed, and its queue goes with it.
        self._reports = queue_get_main(self._rk)

    def forget(self):
        """Begin to watch anew."""
        self._failed = 0

    @property
    def failure(self):
        """Why the first record failed that could not be delivered, since the last :meth:`forget`; None."""
        return KafkaError(self._failed) if self._failed else None

    def serve(self, double seconds):
        """Wait so long for something to be reported, and take what is."""
        with nogil:
            self._take(_monotonic() + seconds)

    def flush(self, double seconds):
        """Wait until everything has been acknowledged or given up; return how much has not been."""
        cdef double until = _monotonic() + seconds
        cdef double now
        cdef int left
        with nogil:
            left = outq_len(self._rk)
            while left > 0:
                now = _monotonic()
                if now >= until:
                    break
                self._take(min(until, now + 0.01))
                left = outq_len(self._rk)
        return left

    cdef void _take(self, double until) noexcept nogil:
        cdef void* event
        cdef rd_kafka_message* message
        cdef double left = until - _monotonic()
        event = queue_poll(self._reports, <int> (left * 1_000) + 1 if left > 0 else 0)
        while event != NULL:
            if event_type(event) == EVENT_DELIVERY:
                message = event_message_next(event)
                while message != NULL:
                    if message.err and not self._failed:
                        self._failed = message.err
                    message = event_message_next(event)
            event_destroy(event)
            event = queue_poll(self._reports, 0)

    def queue(self, str topic, Outputs outputs, Py_ssize_t start=0):
        """Queue deliveries from ``start`` on, and say before which one the queue was full; all: their number.

        Raises:
            KafkaException: the client takes no more; what was queued before stays.
        """
        cdef bytes name = topic.encode()
        cdef const char* text = name
        cdef void* rkt = topic_new(self._rk, text, NULL)
        cdef int fault = 0
        if rkt == NULL:
            raise KafkaException(KafkaError(last_error()))
        with nogil:
            start = self._queue(rkt, outputs, start, &fault)
            topic_destroy(rkt)
        if fault and fault != ERR_QUEUE_FULL:
            raise KafkaException(KafkaError(fault))
        return start

    cdef Py_ssize_t _queue(self, void* rkt, Outputs outputs, Py_ssize_t index, int* fault) noexcept nogil:
        cdef rd_kafka_vu[6] vus
        cdef Entry* entry
        cdef void* error
        cdef char* at
        memset(vus, 0, sizeof(vus))
        vus[0].vtype = VTYPE_RKT
        vus[0].u.rkt = rkt
        vus[1].vtype = VTYPE_PARTITION
        vus[2].vtype = VTYPE_KEY
        vus[3].vtype = VTYPE_VALUE
        vus[4].vtype = VTYPE_TIMESTAMP
        vus[5].vtype = VTYPE_MSGFLAGS
        vus[5].u.i = MSG_F_COPY
        while index < outputs.count:
            entry = outputs.entries + index
            at = outputs.data + entry.at
            vus[1].u.i32 = <int32_t> entry.number
            vus[2].u.mem.ptr = at if entry.key_size >= 0 else NULL
            vus[2].u.mem.size = entry.key_size if entry.key_size > 0 else 0
            vus[3].u.mem.ptr = at + vus[2].u.mem.size if entry.value_size >= 0 else NULL
            vus[3].u.mem.size = entry.value_size if entry.value_size > 0 else 0
            vus[4].u.i64 = entry.timestamp
            error = produceva(self._rk, vus, 6)
            if error != NULL:
                fault[0] = error_code(error)
                error_destroy(error)
                return index
            index += 1
        return index
