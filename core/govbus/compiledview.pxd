# What a view holds, for it and for other compiled modules; see compiledview.py.
from govbus.splice cimport Splicer, Walker


cdef class KeyView:
    cdef bytes _source_header
    cdef bytes _shown_header
    cdef object _make_splicer
    cdef Splicer _splicer
    cdef Walker _walker

    cpdef bytes show(self, bytes source_key, Walker walker)
    cdef bytes _pseudonymised(self, Walker walker)


cdef class CompiledView:
    cdef Splicer _splicer
    cdef bytes _value_header
    cdef object _matcher
    cdef tuple _looked_at
    cdef Py_ssize_t _only
    cdef KeyView _key

    cpdef bint matches(self, Walker walker) except -1
    cpdef bytes project(self, Walker walker)
    cpdef bytes key(self, bytes source_key, Walker key_walker)
