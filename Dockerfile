# One TorchServe image with the trained models inside.
#
#   docker build -t genserve .                                         CPU
#   docker build -t genserve --build-arg UV_TORCH_BACKEND=cu130 .      NVIDIA; run it with --gpus all
#   docker run --stop-timeout 135 -p 8080:8080 genserve
#   curl -X POST http://127.0.0.1:8080/predictions/diffusion -o out.png

FROM python:3.11-slim-bookworm AS build
# Which build of torch, from PyTorch's own index: cpu, or a CUDA version such as cu130. To pin its bytes as well:
#   --build-arg "TORCH=torch==2.12.1 --hash=sha256:..."
# The package registry's own build (CUDA), by the hashes in requirements-torch.txt: leave both arguments empty.
ARG UV_TORCH_BACKEND=cpu
ARG TORCH=torch==2.12.1
# a folder of wheels, for a machine that has torch nowhere else
ARG UV_FIND_LINKS
WORKDIR /app
ENV VIRTUAL_ENV=/app/.venv
COPY requirements-uv.txt requirements-docker.txt requirements-torch.txt ./
RUN python -m venv .venv && .venv/bin/pip install --quiet --require-hashes -r requirements-uv.txt
RUN if [ -z "$UV_TORCH_BACKEND" ]; then unset UV_TORCH_BACKEND; fi; \
    if [ -n "$TORCH" ]; then echo "$TORCH" > torch.txt; .venv/bin/uv pip install --quiet -r torch.txt; \
    else .venv/bin/uv pip install --quiet --require-hashes -r requirements-torch.txt -r requirements-docker.txt; fi
RUN unset UV_TORCH_BACKEND; .venv/bin/uv pip install --quiet --require-hashes -r requirements-docker.txt
COPY genserve genserve
COPY handlers handlers
COPY scripts scripts
COPY weights weights
RUN .venv/bin/python scripts/build_archives
# A server compiles nothing and installs nothing.
RUN .venv/bin/uv pip uninstall --quiet pip setuptools uv && cd .venv/lib/python3.11/site-packages/torch \
 && rm -rf include test share/cmake bin/test_* bin/protoc*

FROM python:3.11-slim-bookworm
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=genserve \
      org.opencontainers.image.description="TorchServe with small generative models: diffusion, consistency, energy" \
      org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless tini && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home genserve
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY --from=build /app/model_store model_store
COPY config.properties metrics.yaml log4j2.xml ./
COPY genserve genserve
COPY scripts/healthcheck scripts/models scripts/serve scripts/
# Predictions and metrics are reachable from outside the container; management and gRPC stay on its loopback.
# Logs and unpacked archives are in /tmp: a read-only root wants a tmpfs there.
ENV PATH=/app/.venv/bin:$PATH GENSERVE_HOME=/tmp/genserve PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
EXPOSE 8080 8082
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s CMD ["python", "/app/scripts/healthcheck"]
# It waits for Java, passes SIGTERM on and lets open requests end: give it the deadline of the archives and 15 s.
ENTRYPOINT ["tini", "--"]
CMD ["python", "/app/scripts/serve", "run", "--host", "0.0.0.0", "--model-store", "/app/model_store"]
