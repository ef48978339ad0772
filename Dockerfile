# The migrations as a one-shot job: docker run IMAGE migrate up
FROM python:3.12-slim
WORKDIR /opt/guvnor
COPY pyproject.toml README.md alembic.ini ./
COPY alembic alembic
COPY guvnor guvnor
RUN pip install --no-cache-dir . && rm -rf /opt/guvnor/*
RUN useradd --system --home-dir /nonexistent guvnor
USER guvnor
ENTRYPOINT ["guvnor"]
CMD ["migrate", "up"]
