# The image of kvnode: one static program and nothing else.
#
#   docker build -t kvnode .                      compiles in a container
#   docker build -t kvnode --target prebuilt \
#     --build-arg BINARY=target/x86_64-unknown-linux-gnu/release/kvnode .
#                                                 takes a static program that was built beside this file
#
# The classic builder runs every stage above the target, so what needs no base image stands first.

# What both images have in common. No shell, no libc, no user database: the user is a number.
FROM scratch AS base
LABEL org.opencontainers.image.title="kvnode" \
      org.opencontainers.image.description="A peer-to-peer, strongly consistent key-value store" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/kvnode/kvnode" \
      org.opencontainers.image.documentation="https://github.com/kvnode/kvnode/blob/main/docs/operations.md"
# Without LISTEN_ADDRESS the node takes the address that leads to its first join address, or to the network.
# Clients are served on every interface, since a mapped port may arrive on another one than the overlay's.
ENV KVNODE_LISTEN=auto \
    KVNODE_HTTP_LISTEN=0.0.0.0:8000
USER 65532:65532
EXPOSE 8000 14195
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/kvnode", "healthcheck"]
ENTRYPOINT ["/kvnode"]

FROM base AS prebuilt
ARG BINARY=kvnode
COPY ${BINARY} /kvnode

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# With --target the flags reach the program but not the procedural macros, which cannot be static.
RUN host="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p kvnode --target "$host" \
 && cp "target/$host/release/kvnode" /kvnode

FROM base AS kvnode
COPY --from=build /kvnode /kvnode
