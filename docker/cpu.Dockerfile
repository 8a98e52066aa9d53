# embank without a GPU. From the repository's root: docker build -f docker/cpu.Dockerfile -t embank:cpu .
FROM python:3.12.12-slim-trixie AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/embank

# Dependencies first: they change less often than the program.
COPY docker/cpu.lock /tmp/docker.lock
RUN pip --python /opt/embank install --require-hashes --no-deps -r /tmp/docker.lock

WORKDIR /src
COPY pyproject.toml README.md LICENSE cli.py ./
COPY stores stores
COPY engine engine
COPY benchmarks benchmarks
RUN pip --python /opt/embank install --no-deps --no-build-isolation .


FROM python:3.12.12-slim-trixie

LABEL org.opencontainers.image.title="embank" \
    org.opencontainers.image.description="Bank the embeddings of medical images once; evaluate them for ever after (CPU)" \
    org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/embank /opt/embank
COPY docker/health.py /opt/embank/health.py

# Writable for whichever user the container runs as (compose's EMBANK_USER); a new volume inherits it.
RUN install -d -m 1777 /home/embank /banks

# USER as a variable: not every user id has a name here, and libraries ask for one.
ENV PATH=/opt/embank/bin:$PATH HOME=/home/embank USER=embank PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /banks

HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 CMD ["python", "/opt/embank/health.py"]
ENTRYPOINT ["embank"]
CMD ["--help"]
