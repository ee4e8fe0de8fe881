# The operator alone on an empty base. `make release` builds the static binary first; nothing is
# compiled or fetched here, so the image holds exactly the file that was tested.
FROM scratch

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ollama-fleet-operator" \
      org.opencontainers.image.description="Watches Ollama servers outside the cluster and shows them as Kubernetes objects" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --chmod=0555 dist/ollama-fleet-operator /ollama-fleet-operator

# A number, because scratch has no /etc/passwd and runAsNonRoot is checked against a number.
USER 65532:65532
# Metrics and API over TLS; health.
EXPOSE 8443 8081
ENTRYPOINT ["/ollama-fleet-operator"]
CMD ["run"]
