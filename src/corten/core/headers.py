"""Headers that gateway, controller and the server in an image all know."""

AGAIN_HEADER = "x-corten-again"  # of an answer, `1`: the gateway sends the request again
ATTEMPT_HEADER = "x-envoy-attempt-count"  # of a request: 1 for its first
