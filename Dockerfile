# thresher with what reads models; the CPU build of torch. docker build -t thresher .
# docker run --rm -v "$PWD:/rows" thresher select pool.jsonl --budget 10% --out chosen
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY thresher thresher
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu '.[encoders,train,report,hub]' \
    && useradd --create-home thresher
USER thresher
ENV THRESHER_CACHE=/home/thresher/.cache/thresher
RUN thresher warm-up
WORKDIR /rows
ENTRYPOINT ["thresher"]
CMD ["--help"]
