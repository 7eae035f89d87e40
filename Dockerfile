# taskcast in an image without anything else: no shell, not root, nothing in it has to be written to but /data.
#   docker build --build-arg TASKCAST_COMMIT="$(git rev-parse HEAD)" --tag taskcast .
# With podman or buildah also `--format docker`: images of the other format have no health check.

FROM rust:1.95-bookworm AS chef
RUN cargo install --locked cargo-chef --version 0.1.78
WORKDIR /build

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
# As `make release` does.
COPY deploy/taskcast.profdata deploy/
ENV RUSTFLAGS="-Cprofile-use=/build/deploy/taskcast.profdata"
# Built again only when a dependency or the profile changes.
COPY --from=plan /build/recipe.json recipe.json
RUN cargo chef cook --locked --release --bin taskcast --target "$(rustc --print host-tuple)" --recipe-path recipe.json
COPY . .
# There is no git in the context.
ARG TASKCAST_COMMIT
RUN TASKCAST_COMMIT="${TASKCAST_COMMIT}" cargo build --locked --release --bin taskcast --target "$(rustc --print host-tuple)" \
 && deploy/container/rootfs.sh target/*/release/taskcast /root-of-image

FROM scratch
LABEL org.opencontainers.image.title="taskcast" \
      org.opencontainers.image.description="A Socket.IO-compatible realtime gateway for tasks that live in MongoDB" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /root-of-image /
ENV DATA_DIR=/data
VOLUME /data
EXPOSE 3000
USER 65532:65532
STOPSIGNAL SIGTERM
# It asks the port in PORT. Whether clients may come is another question: /api/health, or `taskcast health --ready`.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/taskcast", "health"]
ENTRYPOINT ["/taskcast"]
