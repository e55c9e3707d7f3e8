# The service in a container. One target so far:
#   docker build --target cpu -t depth-any-panorama:cpu .     numpy and ONNX Runtime, no torch, the bundled model inside
# PYTHON_IMAGE may be any image with Python 3.11 or later and pip; build and final stage use the same one, so the environment fits.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm


FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /app

# Dependencies first: this layer stays while only the project's own code changes.
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements.txt \
    && python3 -m pip --python /app/bin/python install -c constraints.txt -r requirements.txt

COPY README.md LICENSE ./
COPY dap ./dap
COPY service ./service
COPY training ./training
COPY model_export ./model_export
COPY benchmarks ./benchmarks
COPY demo ./demo
RUN python3 -m pip --python /app/bin/python install --no-deps .


FROM ${PYTHON_IMAGE} AS cpu
LABEL org.opencontainers.image.title="depth-any-panorama" \
      org.opencontainers.image.description="Metric depth and point clouds from 360° panoramas" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DAP_HOST=0.0.0.0 DAP_PORT=8000 DAP_HOME=/var/lib/dap
# By number, so that Kubernetes can see that it is not root. The root file system may be read-only: serving writes nothing. Other models than the
# bundled one are looked for in DAP_HOME; mount a volume there.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"DAP_PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["dap"]
CMD ["serve"]
