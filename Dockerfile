# Built from the repository's root: docker build -t nsad .
# For another Debian: --build-arg DEBIAN=bookworm-slim.
ARG DEBIAN=trixie-slim

FROM debian:${DEBIAN} AS build
RUN apt-get update && apt-get install -y --no-install-recommends make
WORKDIR /src
COPY Makefile ./
RUN make build-deps
COPY . .
ARG REVISION=unknown
RUN make -j"$(nproc)" REVISION="${REVISION}" && strip build/nsad
# The packages of the libraries that the program loads, whatever this Debian calls them.
RUN ldd build/nsad | awk '$2 == "=>" {print $3}' | xargs realpath | sed 's|.*\(/.*/\)|*\1|' | \
    xargs dpkg-query -S | sed 's/[,:].*//' | sort -u > build/packages

FROM debian:${DEBIAN}
COPY --from=build /src/build/packages /tmp/packages
RUN apt-get update && \
    xargs -a /tmp/packages apt-get install -y --no-install-recommends && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* /tmp/packages
COPY --from=build /src/build/nsad /usr/local/bin/nsad
COPY docker/models /models
COPY LICENSE /usr/share/doc/nsad/LICENSE
ENV NSAD_LISTEN=0.0.0.0:8080 NSAD_MODEL_REPOSITORY=/models
VOLUME /models
EXPOSE 8080
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s \
    CMD ["/usr/local/bin/nsad", "--healthcheck", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["/usr/local/bin/nsad"]
