"""What govbus costs, measured beside its peers on the machine at hand.

``python -m bench exchange`` starts one embedded broker and lets every peer do
the same work on it, one after the other, in interleaved rounds:

1. ``records`` makes the input and says what every peer must have delivered;
2. ``ground`` is the broker, with the topics, the input and the reading of outputs;
3. ``lineup`` says which peers there are and how each one's process is started, with what
   ``toolbox`` has fetched and compiled for it; the programs themselves are in ``bench.peers``;
4. ``window`` watches the outputs grow and measures rate, CPU and memory;
5. ``exchange``, ``fanout``, ``latency``, ``revoke`` and ``growth`` are the questions asked;
6. ``report`` turns the rounds into medians, ratios, a table and JSON.

A peer whose outputs are not what they must be gets no figure.
"""
