# The statistics service. It reads runs, and needs no TensorFlow: about a fifth of the size of the other image.
# Build from the root of the repository: docker build -f deploy/service.Dockerfile -t actisketch-service .
# Run: docker run --read-only --tmpfs /tmp -p 127.0.0.1:8570:8570 -e ACTISKETCH_TOKEN -v $PWD/runs:/runs:ro actisketch-service
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
FROM ${PYTHON_IMAGE} AS build

ENV PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY . .
# Everything that pyproject.toml asks for, but what only computing needs.
RUN python deploy/service_needs.py > /tmp/needs.txt \
    && python -m venv /opt/actisketch \
    && /opt/actisketch/bin/pip install --no-cache-dir -r /tmp/needs.txt \
    && /opt/actisketch/bin/pip install --no-cache-dir --no-deps .

FROM ${PYTHON_IMAGE}

# What is written goes to /tmp: the root file system may be read-only.
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/actisketch/bin:$PATH \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba
COPY --from=build /opt/actisketch /opt/actisketch
RUN useradd --uid 1000 actisketch && install --directory --owner=actisketch /runs
USER 1000
EXPOSE 8570
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8570/healthz', timeout=4)"]
# The token comes from ACTISKETCH_TOKEN, or from a file with --token-file.
CMD ["actisketch", "serve", "/runs", "--host", "0.0.0.0"]
