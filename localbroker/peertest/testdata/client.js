// What a client of mqtt.js does with a broker, in a browser and in Node, where
// it is run as: node client.js URL… with the file of a trusted authority in CA.
// Prints a line for each URL and version, "ok …" or what went wrong.
if (typeof require !== "undefined") globalThis.mqtt = require("mqtt");
const extra = typeof process !== "undefined" && process.env.CA ? {ca: require("fs").readFileSync(process.env.CA)} : {};
const PATIENCE = 15000, AWAY = 50;

function within(promise, what) {
  return Promise.race([promise, new Promise((_, refuse) =>
    setTimeout(() => refuse(new Error("waited in vain for " + what)), PATIENCE))]);
}

function connect(url, protocolVersion, clientId, stored) {
  const options = {protocolVersion, clientId, clean: !stored, reconnectPeriod: 0, keepalive: 30, ...extra};
  if (protocolVersion === 5 && stored) options.properties = {sessionExpiryInterval: 3600};
  const client = mqtt.connect(url, options);
  client.got = [], client.waiting = null;
  client.on("message", (topic, payload, packet) => {
    client.got.push([payload.toString(), packet.qos, packet.retain].join(" "));
    if (client.waiting) client.waiting();
  });
  return within(new Promise((done, refuse) => {
    client.on("connect", connack => done([client, connack.sessionPresent]));
    client.on("error", refuse);
    client.on("close", () => refuse(new Error("closed")));
  }), "the CONNACK");
}

async function expect(client, want) {
  await within((async () => {
    while (client.got.length < want.length) await new Promise(done => client.waiting = done);
  })(), want);
  const got = client.got.splice(0, want.length);
  if (String(got) !== String(want)) throw new Error("got " + got + ", want " + want);
}

async function subscribe(client, topic, qos) {
  const [granted] = await within(client.subscribeAsync(topic, {qos}), "the SUBACK");
  if (granted.qos !== qos) throw new Error("granted " + granted.qos);
}

async function use(url, version) {
  for (const qos of [0, 1, 2]) {
    const topic = ["TopicA/page", version, url.split(":")[0], qos].join("/");
    const [publisher] = await connect(url, version, "publisher");
    const [live] = await connect(url, version, "live");
    await subscribe(live, topic, 2);
    await publisher.publishAsync(topic, "live", {qos});
    await publisher.publishAsync(topic, "kept", {qos, retain: true});
    await expect(live, [`live ${qos} false`, `kept ${qos} false`]);
    const [late] = await connect(url, version, "late");
    await subscribe(late, topic, 2);
    await expect(late, [`kept ${qos} true`]);
    await publisher.publishAsync(topic, "", {qos, retain: true});
    if (qos > 0) {
      await (await connect(url, version, "away"))[0].endAsync(); // no session is left
      const [away] = await connect(url, version, "away", true);
      await subscribe(away, topic, qos);
      await away.endAsync();
      const want = [];
      for (let i = 0; i < AWAY; i++) {
        await publisher.publishAsync(topic, String(i), {qos});
        want.push(`${i} ${qos} false`);
      }
      const [back, present] = await connect(url, version, "away", true);
      if (!present) throw new Error("the session is gone");
      await expect(back, want);
      await back.endAsync();
    }
    for (const client of [publisher, live, late]) await client.endAsync();
  }
}

// useAll uses every broker with MQTT 3.1.1 and 5 and tells a line for each.
async function useAll(urls, tell) {
  for (const url of urls)
    for (const version of [4, 5])
      await use(url, version).then(() => tell(`ok ${url} ${version}`), e => tell(`${url} ${version}: ${e.message}`));
}

if (typeof require !== "undefined") useAll(process.argv.slice(2), console.log).then(() => process.exit(0));
