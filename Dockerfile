# syntax=docker/dockerfile:1
# One image with every program: holdfast, holdfast-api, holdfast-dataserver and
# holdfastctl. `docker run -p 8080:8080 IMAGE` starts the first; name another one
# as the command.
#
# It builds on amd64 and arm64, each for itself: nothing in here knows the
# architecture. RUNTIME may be any image with glibc 2.36 or newer; nothing is run
# in it, so that it needs no shell: gcr.io/distroless/cc-debian12 will do.
ARG RUST=docker.io/library/rust:1-bookworm
ARG RUNTIME=docker.io/library/debian:bookworm-slim

# What decides which dependencies are built, and no more: the layer that builds
# them below is used again until a manifest changes. Every room keeps its roots,
# which its manifest names, as stubs.
FROM ${RUST} AS manifests
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY services services
RUN find services -type f ! -name Cargo.toml ! -name main.rs ! -name lib.rs -delete \
    && find services -type d -empty -delete \
    && printf '//! A stub.\nfn main() {}\n' >stub \
    && find services -name main.rs -exec cp stub {} \; \
    && echo '//! A stub.' >stub \
    && find services -name lib.rs -exec cp stub {} \; \
    && rm stub \
    && find . -exec touch -d @0 {} +

FROM ${RUST} AS build
# Any profile of Cargo.toml; `dev` is quick to build and slow to run.
ARG PROFILE=dist
WORKDIR /src
COPY --from=manifests /src .
RUN cargo build --locked --profile "${PROFILE}" --workspace --exclude holdfast-testkit --exclude holdfast-model --exclude holdfast-simulation --bins
COPY services services
# The stubs were built after the sources were written: without this, cargo takes
# them for current.
RUN rm -rf target/*/.fingerprint/holdfast* \
    && cargo build --locked --profile "${PROFILE}" --workspace --exclude holdfast-testkit --exclude holdfast-model --exclude holdfast-simulation --bins \
    && mkdir -p /out/bin /out/data \
    && find target/*/ -maxdepth 1 -type f -perm -u+x -exec cp {} /out/bin/ \; \
    && strip /out/bin/* \
    && cp /etc/ssl/certs/ca-certificates.crt /out/

FROM ${RUNTIME}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Holdfast" \
      org.opencontainers.image.description="A distributed object store without a metadata database" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /usr/share/doc/holdfast/LICENSE
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build --chown=10001:10001 /out/data /var/lib/holdfast
# In a container, an address that only the container reaches is of no use.
ENV LISTEN_ADDRESS=:8080 \
    ADMIN_LISTEN_ADDRESS=:9090 \
    STORAGE_ROOT=/var/lib/holdfast
USER 10001:10001
WORKDIR /var/lib/holdfast
# Everything that is ever written; the root may be read-only.
VOLUME /var/lib/holdfast
EXPOSE 8080 9090
# Finishes what is in flight, see README.md, Shutdown. A second one ends at once.
STOPSIGNAL SIGTERM
CMD ["/usr/local/bin/holdfast"]
