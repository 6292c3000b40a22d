// Validates custom resources against the schemas of those who define them.
//
//   node validate.mjs PACKAGES <OBJECTS >COMPLAINTS
//
// PACKAGES is a directory with node_modules of package.json beside this file,
// OBJECTS a JSON list, COMPLAINTS a JSON list of a list of lines for each object.
//
// The packages carry a function for each schema, made from the Go types and the
// markers that the custom resource definitions are made from, too. It lets a field
// pass that it does not know, as a schema does; an API server refuses or drops it.
// But it looks at every field that it knows: one that was never looked at is unknown.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const SCHEMAS = {
  "monitoring.coreos.com/v1":
    "prometheus-operator/_schemas/ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1",
  "gateway.networking.k8s.io/v1": "gateway-api/_schemas/IoK8sSigsGatewayApiApisV1",
};

const packages = pathToFileURL(`${resolve(process.argv[2])}/node_modules/@kubernetes-models/`);

// The value, and what notes which fields of it are looked at.
function watch(value, path, watched) {
  if (value === null || typeof value !== "object") return value;
  const seen = new Set();
  const inner = Array.isArray(value) ? [] : {};
  for (const [key, one] of Object.entries(value)) inner[key] = watch(one, `${path}/${key}`, watched);
  if (Array.isArray(value)) return inner;
  watched.push({ path, keys: Object.keys(value), seen });
  return new Proxy(inner, {
    get(target, key) {
      seen.add(key);
      return target[key];
    },
  });
}

async function complaints(object) {
  const prefix = SCHEMAS[object.apiVersion];
  if (!prefix) return [`there is no schema of ${object.apiVersion}`];
  const { validate } = await import(new URL(`${prefix}${object.kind}.js`, packages));
  const watched = [];
  if (!validate(watch(object, "", watched)))
    return validate.errors.map((error) => `${error.instancePath}: ${error.keyword} ${JSON.stringify(error.params)}`);
  return watched.flatMap(({ path, keys, seen }) =>
    keys.filter((key) => !seen.has(key)).map((key) => `${path}: there is no field ${key}`),
  );
}

const objects = JSON.parse(readFileSync(0, "utf8"));
const found = [];
for (const object of objects) found.push(await complaints(object));
process.stdout.write(JSON.stringify(found));
