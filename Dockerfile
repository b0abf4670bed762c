# The images of relume; docs/deploying.md says how to run them.
#
#   make image                                                serve, on the CPU; with labels
#   docker build -t relume .                                  the same, of no named version
#   docker build -t relume:gpu --build-arg RUNTIME=gpu .      serve, on an NVIDIA GPU
#   docker build -t relume --build-arg EXTRAS="openvino tracing" .    with what settings ask for
#   docker build -t relume:convert --target convert .         convert checkpoints

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# --group is new in pip 25.1
RUN python -m venv /opt/relume && /opt/relume/bin/pip install "pip>=25.1"
ENV PATH=/opt/relume/bin:$PATH
WORKDIR /src
COPY pyproject.toml ./

FROM build AS build-serve
ARG RUNTIME=cpu
ARG EXTRAS=""
# What onnxruntime it is to be stands in pyproject.toml, under the extra of that name; so do others.
RUN python -c "import sys, tomllib; \
      extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
      print(*(one for name in sys.argv[1].split() for one in extras[name]), sep='\n')" \
      "$RUNTIME $EXTRAS" > runtime.txt \
    && pip install --group serve -r runtime.txt
COPY README.md LICENSE NOTICE ./
COPY models models
COPY converters converters
COPY service service
COPY relume relume
COPY docs/errors docs/errors
RUN pip install --no-deps .

FROM build AS build-convert
COPY README.md LICENSE NOTICE ./
COPY models models
COPY converters converters
COPY service service
COPY relume relume
COPY docs/errors docs/errors
# hadolint ignore=DL3013  # this is not a package of an index, and pyproject.toml has its pins
RUN pip install ".[cpu]"

FROM python:3.12-slim AS convert
ARG VERSION="" REVISION="" SOURCE=""
LABEL org.opencontainers.image.title="relume convert" \
      org.opencontainers.image.description="Converts checkpoints of Torch7, MXNet and early PyTorch to PyTorch and ONNX" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-convert /opt/relume /opt/relume
# torch asks for the user's name, which a bare number does not have
ENV PATH=/opt/relume/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp LOGNAME=relume
USER 10001:10001
WORKDIR /artifacts
ENTRYPOINT ["relume", "convert"]

FROM python:3.12-slim AS serve
ARG VERSION="" REVISION="" SOURCE=""
LABEL org.opencontainers.image.title="relume" \
      org.opencontainers.image.description="Serves image networks of 2014 to 2018 over HTTP" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-serve /opt/relume /opt/relume
# Inside a container the loopback address reaches nobody. The driver's part of CUDA is mounted by
# NVIDIA's container toolkit, and only the parts that are named.
ENV PATH=/opt/relume/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 \
    CLASSIFY_HOST=0.0.0.0 CLASSIFY_MODELS=/artifacts CLASSIFY_LOG_FORMAT=json \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "\
import http.client, os, sys; \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('CLASSIFY_PORT') or 8000), timeout=2); \
service.request('GET', '/readyz'); \
sys.exit(service.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "service"]
