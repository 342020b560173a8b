# The supervisor in a container of its own. Jails need namespaces, mounts and control groups of
# their own inside it, so it is run with more rights than most containers: see README.md.

FROM rust:1.95-bookworm AS build
WORKDIR /cloister
COPY Cargo.toml Cargo.lock rustfmt.toml clippy.toml ./
COPY supervisor supervisor
COPY tests tests
COPY profiles profiles
RUN cargo build --release --locked -p supervisor -p jail -p analyzer -p seal

FROM node:24-bookworm-slim AS harness
WORKDIR /node-harness
COPY node-harness/package.json node-harness/package-lock.json node-harness/.npmrc ./
RUN npm ci --ignore-scripts
COPY node-harness/src src
RUN npm run bundle && npm prune --ignore-scripts --omit=dev

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --no-install-recommends --yes ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /cloister/target/release/supervisor /cloister/target/release/jail-exec /cloister/target/release/analyzer /cloister/target/release/libseal.so /usr/local/bin/
COPY --from=harness /node-harness /usr/local/share/cloister/node-harness
VOLUME /var/lib/cloister
ENTRYPOINT ["supervisor"]
CMD ["serve"]
