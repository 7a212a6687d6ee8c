"""The router's sidecar: turns the routes ConfigMap and EndpointSlices into Envoy's discovery files. Reads Kubernetes, never writes it."""
