"""How much one answer may be. A family whose items are cheaper has limits of its own."""

SAMPLES_MAX = 64  # images, texts or pictures that were sent, in one answer
# values in one answer; the host takes minutes over a batch of answers of tens of megabytes
PIXELS_MAX = 2**22
# Bytes of one answer, and of all that one visit of the host takes along: max_response_size of
# config.properties, less room for headers. More would end the worker.
ANSWER_MAX = 15 * 2**20
# images x network evaluations of one request: a minute of one core if they share batches, more if not
WORK_MAX = 16_384
FRAMES_MAX = 50  # of an animation
STREAM_FRAMES = 10  # where a client says no number
STRIP_MAX = 10  # noise levels in a filmstrip
