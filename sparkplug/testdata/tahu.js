// Reads and writes payloads with sparkplug-payload, the codec of Eclipse Tahu.
//   node tahu.js decode   lines of hex in, lines of text out
//   node tahu.js encode   lines of JSON in, lines of hex out
//   node tahu.js unpack   as decode, by sparkplug-client, which opens compressed ones
// A payload is one line: seq, timestamp, then each metric in brackets.
const { decodePayload, encodePayload } = require('sparkplug-payload').get('spBv1.0');
const Long = require('long');
const lines = require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean);

function text(type, v) {
  if (v === null || v === undefined) return 'null';
  switch (type) {
    case 'Float': case 'Double': {
      const b = Buffer.alloc(8);
      b.writeDoubleBE(v);
      return b.toString('hex');
    }
    case 'String': case 'Text': case 'UUID': return Buffer.from(v, 'utf8').toString('hex');
    case 'Template': return `{${v.templateRef || ''} ${v.isDefinition} ${v.version || ''} ${list(v.metrics)}}`;
    case 'UInt32': return String(Long.isLong(v) ? v.toUnsigned() : v >>> 0);
  }
  return String(v);
}

function show(p) {
  return `${p.seq === undefined ? '-' : p.seq} ${p.timestamp} ${list(p.metrics)}`;
}

function list(metrics) {
  return (metrics || []).map((m) => {
    const props = Object.entries(m.properties || {}).map(([k, q]) => ` ${k}:${q.type}=${text(q.type, q.value)}`).join('');
    return `[${m.name || ''} ${m.alias === undefined ? '-' : m.alias} ${m.timestamp} ${m.type || 'Unknown'} ` +
      `${m.isHistorical ? 'h' : '-'}${m.isTransient ? 't' : '-'} ${text(m.type, m.value)}${props}]`;
  }).join(' ');
}

function value(type, s) {
  if (s === null) return null;
  switch (type) {
    case 'Int64': return Long.fromString(s);
    case 'UInt32': case 'UInt64': case 'DateTime': return Long.fromString(s, true);
    case 'Boolean': return s === 'true';
    case 'String': case 'Text': case 'UUID': return s;
  }
  return Number(s);
}

function make(p) {
  for (const m of p.metrics) {
    m.value = value(m.type, m.value);
    if (m.alias !== undefined) m.alias = Long.fromString(m.alias, true);
    for (const q of Object.values(m.properties || {})) q.value = value(q.type, q.value);
  }
  return p;
}

// client returns a sparkplug-client, which connects to nobody.
function client() {
  const c = require('sparkplug-client').newClient({ serverUrl: 'mqtt://127.0.0.1:1', username: '', password: '', groupId: 'g', edgeNode: 'n', clientId: 'c' });
  c.on('error', () => {});
  return c;
}

const mode = process.argv[2];
const opener = mode === 'unpack' ? client() : null;
for (const line of lines) {
  if (mode === 'encode') console.log(Buffer.from(encodePayload(make(JSON.parse(line)))).toString('hex'));
  else {
    const p = decodePayload(Buffer.from(line, 'hex'));
    console.log(show(opener ? opener.maybeDecompressPayload(p) : p));
  }
}
if (opener) opener.stop();
