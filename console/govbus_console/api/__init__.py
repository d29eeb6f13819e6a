"""The control API: what the command line does, over HTTP, for people who hold a token.

One request goes through, in this order: :mod:`.gate` (sizes, tokens, rates),
:mod:`.access` (may this role do this at all), :mod:`.desk` (may it be done to
this object), the same operations that the command line uses, :mod:`.problems`
(whatever went wrong, in one shape).
"""
