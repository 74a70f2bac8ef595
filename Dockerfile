# The service without its embedded ClickHouse: CLICKHOUSE_URL names the server (docker-compose.yml has one).
FROM node:lts-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# The embedded engine is 300 MB that this image has no use for. Not --omit=optional: it would take the platform's esbuild too.
RUN npm ci --omit=dev && rm -rf node_modules/chdb node_modules/@chdb node_modules/ffi-rs node_modules/@yuuang

FROM node:lts-slim
WORKDIR /app
ENV NODE_ENV=production HOST=0.0.0.0 DATA_DIR=/data
COPY --from=dependencies /app/node_modules node_modules
COPY package.json tsconfig.json ./
COPY docker docker
COPY clickhouse clickhouse
COPY src src
COPY dashboard dashboard
RUN mkdir /data && chown node:node /data
VOLUME /data
USER node
EXPOSE 8787
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8787/health/ready').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["docker/entrypoint.sh"]
CMD ["node", "--max-old-space-size=1024", "--import", "tsx", "src/main.ts"]
