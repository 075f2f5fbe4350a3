# `gastrovl serve` on a CPU. No weights inside: mount a checkpoint at /checkpoint, read-only (docs/how-to/serve.md).
#   docker build -t gastrovl-serve .          (another package index or PyTorch's CPU builds: --build-arg PIP_ARGS="...")
FROM python:3.12-slim AS build
ARG PIP_ARGS=""
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/gastrovl \
    && /opt/gastrovl/bin/pip install --no-cache-dir --no-compile ${PIP_ARGS} -c constraints.txt ".[train,serve,structured]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home gastrovl
COPY --from=build /opt/gastrovl /opt/gastrovl
ENV PATH="/opt/gastrovl/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["gastrovl", "serve"]
CMD ["/checkpoint", "--host", "0.0.0.0", "--port", "8000", "--api-key-env", "GASTROVL_API_KEY"]
