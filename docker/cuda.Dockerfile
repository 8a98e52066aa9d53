# embank on NVIDIA GPUs. From the repository's root: docker build -f docker/cuda.Dockerfile -t embank:cuda .
# `base`, not `runtime`: the CUDA libraries come with the wheels, in the versions they were built for. What the
# base adds is the driver's forward compatibility and the container toolkit's settings.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Ubuntu deletes old versions of its packages: pinned, this would stop building at the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/embank

# Dependencies first: they change less often than the program.
COPY docker/cuda.lock /tmp/docker.lock
RUN pip --python /opt/embank install --require-hashes --no-deps -r /tmp/docker.lock

WORKDIR /src
COPY pyproject.toml README.md LICENSE cli.py ./
COPY stores stores
COPY engine engine
COPY benchmarks benchmarks
RUN pip --python /opt/embank install --no-deps --no-build-isolation .


FROM nvidia/cuda:13.0.2-base-ubuntu24.04

LABEL org.opencontainers.image.title="embank" \
    org.opencontainers.image.description="Bank the embeddings of medical images once; evaluate them for ever after (CUDA)" \
    org.opencontainers.image.licenses="Apache-2.0"

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 1777 /home/embank /banks

COPY --from=build /opt/embank /opt/embank
COPY docker/health.py /opt/embank/health.py

# USER as a variable: not every user id has a name here, and libraries ask for one.
ENV PATH=/opt/embank/bin:$PATH HOME=/home/embank USER=embank PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 1000:1000
WORKDIR /banks

HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 CMD ["python", "/opt/embank/health.py"]
ENTRYPOINT ["embank"]
CMD ["--help"]
