import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { StoreStats } from '../../store/chunks/chunk-store.ts'

/** What Prometheus scrapes at `/metrics`. Names follow its conventions: base units, `_total` for counters. */
export interface Metrics {
  readonly contentType: string
  render(): Promise<string>
  request(seen: { api: string; method: string; status: number; seconds: number; bytesIn: number; bytesOut: number }): void
  stalled(connections: number): void
}

/** What the NBD servers count, by the way that clients come: `unix`, `tcp`. */
export type NbdCounts = Readonly<
  Record<
    string,
    {
      readonly connections: number
      readonly handshaking: number
      readonly connectionsTotal: number
      readonly handshakesFailed: number
      readonly connectionsDropped: number
      readonly requests: Readonly<Record<string, number>>
      readonly requestErrors: number
      readonly bytesRead: number
      readonly bytesWritten: number
    }
  >
>

export function createMetrics(store: () => Promise<StoreStats>, nbd: () => NbdCounts = () => ({})): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry, prefix: 'imprint_' })
  const requests = new Counter({
    name: 'imprint_http_requests_total',
    help: 'Requests answered',
    labelNames: ['api', 'method', 'status'],
    registers,
  })
  const seconds = new Histogram({
    name: 'imprint_http_request_seconds',
    help: 'Time from the first byte of a request to the last byte of its answer',
    labelNames: ['api', 'method'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600],
    registers,
  })
  const bytes = new Counter({ name: 'imprint_http_bytes_total', help: 'Bytes on the wire', labelNames: ['direction'], registers })
  const stalls = new Counter({
    name: 'imprint_http_stalled_connections_total',
    help: 'Connections ended because they stood still',
    registers,
  })

  const gauge = (name: string, help: string) => new Gauge({ name, help, registers })
  const levels = {
    chunks: gauge('imprint_store_chunks', 'Chunks in the store'),
    packs: gauge('imprint_store_packs', 'Packs in the store'),
    manifests: gauge('imprint_store_manifests', 'Manifests in the store'),
    storedBytes: gauge('imprint_store_bytes', 'Compressed bytes of all chunks'),
    chunkDataBytes: gauge('imprint_store_data_bytes', 'Bytes that the chunks stand for'),
  }
  const queue = gauge('imprint_worker_queue_depth', 'Jobs waiting for a worker thread')
  // The store counts from its start; a gauge that only grows is what Prometheus takes for a counter read from elsewhere.
  const counts = {
    chunksNew: gauge('imprint_chunks_new_total', 'Chunks that were stored'),
    chunksKnown: gauge('imprint_chunks_known_total', 'Chunks that were in the store already'),
    chunksZero: gauge('imprint_chunks_zero_total', 'Chunks of zeros, which are not stored'),
    bytesIngested: gauge('imprint_ingested_bytes_total', 'Bytes taken in'),
    bytesRead: gauge('imprint_read_bytes_total', 'Bytes read from the store and verified'),
    cacheHits: gauge('imprint_chunk_cache_hits_total', 'Chunks answered from memory'),
    cacheMisses: gauge('imprint_chunk_cache_misses_total', 'Chunks read from packs'),
    collections: gauge('imprint_collections_total', 'Runs of the collector'),
    bytesFreed: gauge('imprint_collected_bytes_total', 'Bytes that the collector freed'),
  }

  const setNbd = nbdGauges(registry)

  return {
    contentType: registry.contentType,
    async render() {
      setNbd(nbd())
      const stats = await store()
      for (const [name, metric] of Object.entries(levels)) metric.set(stats[name as keyof typeof levels])
      for (const [name, metric] of Object.entries(counts)) metric.set(stats.counters[name as keyof typeof counts])
      queue.set(stats.counters.queueDepth)
      return registry.metrics()
    },
    request(seen) {
      requests.inc({ api: seen.api, method: seen.method, status: seen.status })
      seconds.observe({ api: seen.api, method: seen.method }, seen.seconds)
      bytes.inc({ direction: 'in' }, seen.bytesIn)
      bytes.inc({ direction: 'out' }, seen.bytesOut)
    },
    stalled: (connections) => stalls.inc(connections),
  }
}

/** @returns takes what was counted by now */
function nbdGauges(registry: Registry): (counts: NbdCounts) => void {
  const gauge = (name: string, help: string, ...more: string[]) =>
    new Gauge({ name, help, labelNames: ['transport', ...more], registers: [registry] })
  const levels = {
    connections: gauge('imprint_nbd_connections', 'NBD connections that have chosen an export'),
    handshaking: gauge('imprint_nbd_handshaking', 'NBD connections that have not yet'),
    connectionsTotal: gauge('imprint_nbd_connections_total', 'NBD connections that came'),
    handshakesFailed: gauge('imprint_nbd_handshakes_failed_total', 'NBD connections that got no export'),
    connectionsDropped: gauge(
      'imprint_nbd_connections_dropped_total',
      'NBD connections ended by us: revoked, too slow, too many',
    ),
    requestErrors: gauge('imprint_nbd_request_errors_total', 'NBD requests that failed'),
  }
  const requests = gauge('imprint_nbd_requests_total', 'NBD requests begun', 'command')
  const bytes = gauge('imprint_nbd_bytes_total', 'Bytes of disks that were read and written', 'direction')
  return (counts) => {
    for (const [transport, counted] of Object.entries(counts)) {
      for (const [name, metric] of Object.entries(levels)) metric.set({ transport }, counted[name as keyof typeof levels])
      for (const [command, count] of Object.entries(counted.requests))
        requests.set({ transport, command: command.toLowerCase() }, count)
      bytes.set({ transport, direction: 'read' }, counted.bytesRead)
      bytes.set({ transport, direction: 'written' }, counted.bytesWritten)
    }
  }
}
