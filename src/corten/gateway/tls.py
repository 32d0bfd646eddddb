"""TLS at the front door as Envoy's resources. The certificate is one of its own: renewed without a new listener."""

from __future__ import annotations

from corten.gateway.certificate import Certificate
from corten.gateway.resources import CERTIFICATE_NAME
from corten.gateway.shape import TYPES, Resource, config_source

_REFRESH = "1s"


def secret(found: Certificate) -> Resource:
    """The certificate and its key. They travel over the owner's socket only, and lie in no file of ours."""
    return {
        "@type": TYPES + "extensions.transport_sockets.tls.v3.Secret",
        "name": CERTIFICATE_NAME,
        "tls_certificate": {
            "certificate_chain": {"inline_string": found.chain},
            "private_key": {"inline_string": found.key},
        },
    }


def transport_socket() -> Resource:
    """What makes a filter chain speak TLS, and HTTP/2 with clients that offer it."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPES + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [
                    {"name": CERTIFICATE_NAME, "sds_config": config_source(_REFRESH)}
                ],
            },
        },
    }
