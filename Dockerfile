# The service in a container:
#   docker build --target cpu -t depth-any-panorama:cpu .     numpy and ONNX Runtime, no torch, the bundled model inside
#   docker build --target gpu -t depth-any-panorama:gpu .     for an NVIDIA GPU: ONNX Runtime with CUDA, and TensorRT; gigabytes. The driver is the host's.
# PYTHON_IMAGE may be any image with Python 3.11 or later and pip; all stages use the same one, so the environments fit.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm


# Dependencies by themselves: these layers stay while only the project's own code changes.
FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /app
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements.txt \
    && python3 -m pip --python /app/bin/python install -c constraints.txt -r requirements.txt


# onnxruntime and onnxruntime-gpu are the same files: one goes before the other comes (docs/decisions/0016).
FROM dependencies AS dependencies-gpu
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["gpu"], sep="\n")' > requirements.txt \
    && python3 -m pip --python /app/bin/python install -c constraints.txt -r requirements.txt \
    && python3 -m pip --python /app/bin/python uninstall --yes onnxruntime onnxruntime-gpu \
    && python3 -m pip --python /app/bin/python install -c constraints.txt 'onnxruntime-gpu[cuda,cudnn]>=1.21'


FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY dap ./dap
COPY service ./service
COPY training ./training
COPY model_export ./model_export
COPY benchmarks ./benchmarks
COPY demo ./demo
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .


FROM dependencies AS build
COPY --from=wheel /wheels /wheels
RUN python3 -m pip --python /app/bin/python install --no-deps /wheels/*.whl


FROM dependencies-gpu AS build-gpu
COPY --from=wheel /wheels /wheels
RUN python3 -m pip --python /app/bin/python install --no-deps /wheels/*.whl


# What both images are but for what is installed.
FROM ${PYTHON_IMAGE} AS service
LABEL org.opencontainers.image.title="depth-any-panorama" \
      org.opencontainers.image.description="Metric depth and point clouds from 360° panoramas" \
      org.opencontainers.image.licenses="Apache-2.0"
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


FROM service AS gpu
# For the container toolkit, which brings the driver in: of that what computing needs, and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /app /app


FROM service AS cpu
COPY --from=build /app /app
