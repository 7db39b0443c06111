# syntax=docker/dockerfile:1
# The gateway with its hosted CPU tiers. `make image-steps` runs the RUN steps without Docker, in a clean folder.
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /app
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt ./
# torch goes in first, at its pinned version. Where the index would send its CUDA build, name an index of CPU builds with
# `--build-arg PIP_EXTRA_INDEX_URL=…`: the gateway needs no more.
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv .venv \
  && .venv/bin/python -m pip install --upgrade -c constraints.txt pip \
  && .venv/bin/python -m pip install -c constraints.txt torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY core core
COPY policies policies
COPY cache cache
COPY router router
COPY backends backends
COPY gateway gateway
RUN .venv/bin/python -m pip install -c constraints.txt '.[cpu,engine]' \
  && install -d -o 10001 -g 10001 var

FROM python:3.12.11-slim-bookworm
WORKDIR /app
ENV PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HEADGATE_CONFIG=/app/headgate.yaml HOME=/tmp PATH=/app/.venv/bin:$PATH
COPY --from=build /app/.venv .venv
COPY --from=build --chown=10001:10001 /app/var var
COPY LICENSE NOTICE headgate.yaml ./
COPY policies/tenants policies/tenants
USER 10001:10001
VOLUME /app/var
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["headgate", "serve"]
