# One TorchServe image with the trained models inside.
#
#   docker build -t genserve .                                         CPU
#   docker build -t genserve --build-arg UV_TORCH_BACKEND=cu130 .      NVIDIA; run it with --gpus all
#   docker run -p 8080:8080 genserve
#   curl -X POST http://127.0.0.1:8080/predictions/diffusion -o out.png

FROM python:3.11-slim-bookworm AS build
# cpu, or a CUDA version such as cu130: which build of torch; empty for the package registry's own
ARG UV_TORCH_BACKEND=cpu
ARG TORCH=torch==2.12.1
# a folder of wheels, for a machine that has torch nowhere else
ARG UV_FIND_LINKS
WORKDIR /app
ENV VIRTUAL_ENV=/app/.venv
COPY requirements-uv.txt requirements-docker.txt ./
RUN python -m venv .venv && .venv/bin/pip install --quiet --require-hashes -r requirements-uv.txt
RUN if [ -z "$UV_TORCH_BACKEND" ]; then unset UV_TORCH_BACKEND; fi; .venv/bin/uv pip install --quiet "$TORCH"
RUN unset UV_TORCH_BACKEND; .venv/bin/uv pip install --quiet --require-hashes -r requirements-docker.txt
COPY genserve genserve
COPY handlers handlers
COPY scripts scripts
COPY weights weights
RUN .venv/bin/python scripts/build_archives && .venv/bin/pip uninstall --quiet --yes uv

FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless tini && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home genserve
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY --from=build /app/model_store model_store
COPY config.properties metrics.yaml log4j2.xml ./
COPY genserve genserve
COPY scripts/healthcheck scripts/healthcheck
# Predictions and metrics are reachable from outside the container; management and gRPC stay on its loopback.
# Logs and unpacked archives are in /tmp: a read-only root wants a tmpfs there.
ENV PATH=/app/.venv/bin:$PATH \
    TS_INFERENCE_ADDRESS=http://0.0.0.0:8080 \
    TS_METRICS_ADDRESS=http://0.0.0.0:8082 \
    TS_METRICS_CONFIG=/app/metrics.yaml \
    LOG_LOCATION=/tmp/logs METRICS_LOCATION=/tmp/logs
USER 10001
WORKDIR /tmp
EXPOSE 8080 8082
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s CMD ["python", "/app/scripts/healthcheck"]
ENTRYPOINT ["tini", "--"]
CMD ["torchserve", "--start", "--foreground", "--ncs", "--ts-config", "/app/config.properties", "--log-config", "/app/log4j2.xml", "--model-store", "/app/model_store"]
