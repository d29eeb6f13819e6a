# What other compiled modules may use of bulk.pyx.
from libc.stdint cimport int32_t, int64_t


cdef struct Entry:
    Py_ssize_t at          # where its key begins in the data; its value follows
    int64_t number         # the offset of a record, the partition of a delivery
    int64_t timestamp      # milliseconds
    int32_t key_size       # -1: none
    int32_t value_size     # -1: none


cdef class Pack:
    cdef char* data
    cdef Py_ssize_t used
    cdef Py_ssize_t room
    cdef Entry* entries
    cdef Py_ssize_t count
    cdef Py_ssize_t places

    cdef Entry* grow(self, Py_ssize_t size) noexcept nogil
    cdef int append(self, key, value, int64_t number, int64_t timestamp) except -1
    cdef bint copy(
        self,
        const char* key,
        Py_ssize_t key_size,
        const char* value,
        Py_ssize_t value_size,
        int64_t number,
        int64_t timestamp,
    ) noexcept nogil
    cdef Py_ssize_t checked(self, Py_ssize_t index) except -1
    cdef object key_of(self, Py_ssize_t index)
    cdef object value_of(self, Py_ssize_t index)


cdef class Records(Pack):
    cdef readonly str topic
    cdef readonly int partition


cdef class Outputs(Pack):
    cpdef int add(self, object key, object value, int partition, int64_t timestamp) except -1
