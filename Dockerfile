# The image of the daemon, built by the daemon:
#
#   make image
#
# The last stage, daemon, is the default; --opt target=rootless gives one for an unprivileged user,
# target=binaries only the two programs,
# target=frontend the Dockerfile frontend as an image (target=frontend-labs that of the labs channel), and
# target=sbom-scanner a scanner for bills of materials. How to run it: docs/running/container.md

ARG GO_IMAGE=golang:1.26-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# Compiled on the machine that builds, for whatever platform is asked for.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
ARG GOPROXY=https://proxy.golang.org,direct
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=v0.0.0+unknown
ARG REVISION=
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    version=github.com/openbuildkit/buildkit/cmd/internal/version && \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X $version.Version=$VERSION -X $version.Revision=$REVISION" \
        -o /out/ ./cmd/buildkitd ./cmd/buildctl ./cmd/dockerfile-frontend ./cmd/sbom-scanner

FROM scratch AS binaries
COPY --from=build /out/buildkitd /out/buildctl /

# The Dockerfile frontend as an image, for "# syntax=". It reaches nothing but the daemon.
FROM scratch AS frontend
LABEL moby.buildkit.frontend.network.none=true \
      moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts,moby.buildkit.frontend.gitquerystring
COPY --from=build /out/dockerfile-frontend /bin/
ENTRYPOINT ["/bin/dockerfile-frontend"]

# The same with what is not yet in the stable language.
FROM frontend AS frontend-labs
ENTRYPOINT ["/bin/dockerfile-frontend", "--channel=labs"]

# The scanner for bills of materials, for --opt attest:sbom=generator=.
FROM scratch AS sbom-scanner
COPY --from=build /out/sbom-scanner /bin/
ENTRYPOINT ["/bin/sbom-scanner"]

# What builds need at run time: a container runtime, git and ssh for git sources, xz and friends
# for archives, iptables for bridge networks.
FROM ${RUNTIME_IMAGE} AS runtime
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates runc git openssh-client fuse-overlayfs iptables isal xz-utils && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /out/buildkitd /out/buildctl /usr/bin/
COPY cmd/buildctl/buildctl-daemonless.sh /usr/bin/

FROM runtime AS rootless
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        rootlesskit slirp4netns uidmap && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 1000 --create-home --shell /bin/sh user && \
    echo user:100000:65536 | tee /etc/subuid > /etc/subgid && \
    mkdir -p /run/user/1000 /home/user/.local/tmp /home/user/.local/share/buildkit && \
    chown -R user:user /run/user/1000 /home/user
USER 1000:1000
ENV HOME=/home/user \
    USER=user \
    XDG_RUNTIME_DIR=/run/user/1000 \
    TMPDIR=/home/user/.local/tmp \
    BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock
VOLUME /home/user/.local/share/buildkit
ENTRYPOINT ["rootlesskit", "buildkitd"]

FROM runtime AS daemon
# With cgroups of version 2 only a group without processes can have limited ones below it.
ENV BUILDKIT_SETUP_CGROUPV2_ROOT=1
VOLUME /var/lib/buildkit
ENTRYPOINT ["buildkitd"]
