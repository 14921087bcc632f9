# CPU:   docker build -t bnf-align .
# CUDA:  docker build -t bnf-align --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
# Run:   docker run --rm -v "$PWD:/data" -w /data bnf-align doctor thumbs.jsonl
ARG BASE=python:3.12-slim
FROM ${BASE}
# Where pip finds PyTorch: empty is the registry, whose build brings CUDA; for a small CPU image pass the --index-url that
# PyTorch's get-started page names for CPU.
ARG TORCH=
RUN command -v python3 >/dev/null && python3 -m venv --help >/dev/null 2>&1 \
    || (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /src
RUN pip install --no-cache-dir ${TORCH} torch==2.13.0
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[eval,gguf]'
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["bnf-align"]
CMD ["--help"]
