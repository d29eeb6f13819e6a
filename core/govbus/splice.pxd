# What the kernel's classes hold, for it and for other compiled modules; see splice.py.


cdef class Walker:
    cdef tuple _names
    cdef dict _schema
    cdef str _fingerprint
    cdef list _objects
    cdef list _fast
    cdef dict _parsed
    cdef tuple _keep
    cdef bytes _data
    cdef bint _walked
    cdef Py_ssize_t _width
    cdef int* _program
    cdef Py_ssize_t* _bounds
    cdef const unsigned char* _p
    cdef Py_ssize_t _end
    cdef long long _number
    cdef long long _free

    cpdef walk(self, bytes data, Py_ssize_t start=*)
    cpdef bytes field(self, Py_ssize_t index)
    cpdef object value(self, Py_ssize_t index)
    cpdef bint same(self, Py_ssize_t index, bytes data, Py_ssize_t start) except -1
    cdef bytes _masked(self, Py_ssize_t index, Py_ssize_t head, Py_ssize_t tail, bytes mask)
    cdef object _check(self, Py_ssize_t index)
    cdef Py_ssize_t _long(self, Py_ssize_t pos) noexcept
    cdef Py_ssize_t _int(self, Py_ssize_t pos) noexcept
    cdef Py_ssize_t _counted(self, Py_ssize_t pos) noexcept
    cdef Py_ssize_t _skip(self, int node, Py_ssize_t pos, int depth) noexcept
    cdef Py_ssize_t _nested(self, int node, Py_ssize_t pos, int depth) noexcept
    cdef Py_ssize_t _blocks(self, int node, Py_ssize_t pos, int depth) noexcept
    cdef Py_ssize_t _text(self, Py_ssize_t pos, Py_ssize_t stop) noexcept
    cdef Py_ssize_t _characters(self, Py_ssize_t pos, Py_ssize_t stop) noexcept
    cdef object _decode(self, int node, Py_ssize_t pos)


cdef class Splicer:
    cdef str _fingerprint
    cdef Walker _walker
    cdef list _encoders
    cdef list _chunks
    cdef bytes _keep
    cdef int* _steps
    cdef Py_ssize_t _count

    cpdef bytes assemble(self, Walker walker, bytes prefix)
    cdef bytes _assemble(self, Walker walker, bytes prefix)
