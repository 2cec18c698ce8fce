// A Sparkplug host that keeps births, with sparkplug-payload, the codec of
// Eclipse Tahu: lines of topic and hex in, lines of JSON out. It opens compressed
// data, in and around which seq is the same (-1: none, -2: not the same). The flags of a
// metric are n and t if its name and its type were in the message itself, h if
// it is historical, 0 if it is null.
const { decodePayload } = require('sparkplug-payload').get('spBv1.0');
const { Payload } = require('sparkplug-payload/lib/sparkplugPayloadProto').org.eclipse.tahu.protobuf;
const { inflateSync } = require('zlib');
const births = {}; // by edge node and device, then by alias and name

function text(type, v) {
  if (v === null || v === undefined) return '';
  return type === 'Float' ? String(Math.fround(v)) : String(v);
}

for (const line of require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const [topic, hex] = line.split(' ');
  const [, group, kind, node, device] = topic.split('/');
  const outer = Payload.decode(Buffer.from(hex, 'hex'));
  const packed = outer.uuid === 'SPBV1.0_COMPRESSED';
  const raw = packed ? Payload.decode(inflateSync(outer.body)) : outer;
  const own = (m, key) => Object.prototype.hasOwnProperty.call(m, key);
  const flags = raw.metrics.map((m) => (own(m, 'name') ? 'n' : '') + (own(m, 'datatype') ? 't' : '') + (m.isHistorical ? 'h' : '') + (m.isNull ? '0' : ''));
  const place = [group, node, device].join('/');
  if (kind.endsWith('BIRTH')) {
    births[place] = {};
    for (const m of raw.metrics) births[place]['name ' + m.name] = births[place]['alias ' + m.alias] = { name: m.name, datatype: m.datatype };
  } else {
    for (const m of raw.metrics) {
      const known = (births[place] || {})[own(m, 'alias') ? 'alias ' + m.alias : 'name ' + m.name];
      if (known && !own(m, 'name')) m.name = known.name;
      if (known && !own(m, 'datatype')) m.datatype = known.datatype;
    }
  }
  const p = decodePayload(Payload.encode(raw).finish());
  console.log(JSON.stringify({
    seq: !own(outer, 'seq') ? -1 : Number(raw.seq) === Number(outer.seq) ? Number(outer.seq) : -2,
    packed,
    metrics: (p.metrics || []).map((m, i) => ({
      name: m.name || '', alias: m.alias === undefined ? -1 : Number(m.alias), time: Number(m.timestamp || 0), type: m.type || '',
      value: text(m.type, m.value), flags: flags[i], props: Object.entries(m.properties || {}).map(([k, q]) => `${k} ${q.type} ${text(q.type, q.value)}`).join(' '),
    })),
  }));
}
