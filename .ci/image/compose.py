"""Asserts what has to fit together in deploy/compose.yaml, and around it."""

import pathlib
import re
import sys

import yaml

SECONDS = {"s": 1, "m": 60}
# 2 x SHUTDOWN_DELAY + SHUTDOWN_TIMEOUT + 5 s, by their defaults.
SHUTDOWN_SECONDS = 2 * 5 + 30 + 5


def demand(holds, complaint):
    if not holds:
        raise SystemExit(f"compose.py: {complaint}")


def seconds(text):
    return int(text[:-1]) * SECONDS[text[-1]]


def main(path):
    path = pathlib.Path(path)
    compose = yaml.safe_load(path.read_text())
    services = compose["services"]
    apis = sorted(n for n in services if n.startswith("api-"))
    dataservers = sorted(n for n in services if n.startswith("dataserver-"))
    demand((len(apis), len(dataservers)) == (2, 3), "there should be 2 apis and 3 data servers")
    for name in ("rabbitmq", "prometheus", "grafana"):
        demand(name in services, f"there is no {name}")

    readme = pathlib.Path("README.md").read_text()
    known = set(re.findall(r"`([A-Z][A-Z_]+)`", readme))
    peers = ",".join(f"{name}:8080" for name in dataservers)
    for name in apis + dataservers:
        service = services[name]
        environment = service["environment"]
        demand(environment.keys() <= known, f"{name}: not in README.md: {environment.keys() - known}")
        demand(environment["DATASERVER_PEERS"] == peers, f"{name}: its peers should be {peers}")
        demand(environment["ADVERTISE_ADDRESS"] == f"{name}:8080", f"{name} advertises another")
        demand(environment["RABBITMQ_HOST"] in services, f"{name}: there is no such broker")
        demand(seconds(service["stop_grace_period"]) > SHUTDOWN_SECONDS, f"{name} may be cut off")
        demand(service["read_only"] and service["cap_drop"] == ["ALL"], f"{name} is not confined")
    for name in dataservers:
        demand(services[name]["environment"]["REPLICAS"] == "3", f"{name}: another number of copies")
        demand(services[name]["environment"]["INITIAL_MEMBERS"] == "3", f"{name}: another number")
        demand(f"{name}:/var/lib/holdfast" in services[name]["volumes"], f"{name}: another volume")
        demand(services[name]["command"] == ["holdfast-dataserver"], f"{name} runs something else")
    for name in apis:
        demand(services[name]["command"] == ["holdfast-api"], f"{name} runs something else")

    for name, service in services.items():
        for port in service.get("ports", []):
            demand(port.startswith("127.0.0.1:"), f"{name}: {port} is open to the network")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                demand((path.parent / source).exists(), f"{name}: there is no {source}")
            else:
                demand(source in compose["volumes"], f"{name}: {source} is not declared")
    ports = [port for service in services.values() for port in service.get("ports", [])]
    taken = [port.rsplit(":", 1)[0] for port in ports]
    demand(len(set(taken)) == len(taken), f"a port is given twice: {taken}")

    scrapes = yaml.safe_load((path.parent / "prometheus/prometheus.yml").read_text())
    targets = {
        target.split(":")[0]
        for job in scrapes["scrape_configs"]
        for config in job["static_configs"]
        for target in config["targets"]
    }
    demand(targets == {*apis, *dataservers, "rabbitmq"}, f"Prometheus scrapes {sorted(targets)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
