"""Values that must be refused, each with what the refusal must say."""

from rendering import CHART, helm, together

EXTERNAL = ["--set", "rabbitmq.enabled=false"]
REFUSED = [
    # Typos, at every level.
    (["--set", "apis.replicaCount=3"], "apis"),
    (["--set", "api.replica=3"], "replica"),
    (["--set", "dataserver.persistence.sizes=1Gi"], "sizes"),
    (["--set", "metrics.serviceMonitor.enable=true"], "enable"),
    (["--set", "rabbitmq.image.tags=4"], "tags"),
    (["--set-json", 'ingress.hosts=[{"hosts":"a","paths":[]}]'], "hosts"),
    (["--set-json", 'api.extraEnv=[{"name":"A","vaule":"1"}]'], "vaule"),
    # Wrong types and forms.
    (["--set-string", "api.replicaCount=three"], "replicaCount"),
    (["--set", "dataserver.replicaCount=0"], "replicaCount"),
    (["--set-string", "rabbitmq.enabled=yes"], "enabled"),
    (["--set", "config.heartbeatInterval=5"], "heartbeatInterval"),
    (["--set", "config.heartbeatInterval=5 s"], "heartbeatInterval"),
    (["--set", "config.maxObjectBytes=5TB"], "maxObjectBytes"),
    (["--set", "dataserver.persistence.size=10GB"], "size"),
    (["--set", "dataserver.persistence.accessModes[0]=ReadOnlyMany"], "accessModes"),
    (["--set", "api.service.type=ExternalName"], "type"),
    (["--set", "image.digest=sha256:123"], "digest"),
    (["--set", "config.replicas=0"], "replicas"),
    (["--set", "config.replicas=6,dataserver.replicaCount=6"], "replicas"),
    (["--set-string", "config.replicas=3"], "replicas"),
    (["--set", "tracing.endpoint=https://collector:4318"], "endpoint"),
    (["--set-json", 'api.extraEnv=[{"name":"A","value":1}]'], "extraEnv"),
    (["--set", "fullnameOverride=" + "x" * 41], "fullnameOverride"),
    (["--set", "httpRoute.enabled=true"], "parentRefs"),
    (["--set", "rabbitmq.resources.limits.memory=null"], "memory"),
    # A broker that is not described.
    (EXTERNAL, "host"),
    ([*EXTERNAL, "--set", "externalRabbitmq.host=broker"], "username"),
    ([*EXTERNAL, "--set", "externalRabbitmq.host=broker,externalRabbitmq.username=me"], "password"),
    ([*EXTERNAL, "--set", "externalRabbitmq.existingSecret=login"], "existingSecretUriKey"),
    (["--set", "externalRabbitmq.host=broker"], "rabbitmq.enabled=false"),
    # Times that do not fit each other.
    (["--set", "api.terminationGracePeriodSeconds=45"], "api.terminationGracePeriodSeconds is 45, but an orderly end may take 45 s"),
    (["--set", "dataserver.terminationGracePeriodSeconds=60,config.shutdownTimeout=1m"], "an orderly end may take 75 s"),
    (["--set", "dataserver.minReadySeconds=5"], "dataserver.minReadySeconds is 5"),
    (["--set", "config.heartbeatExpiry=9999ms"], "at least twice"),
    (["--set", "config.locateTimeout=30s"], "must be below config.bodyTimeout"),
    # Copies that the data servers cannot hold, or do not bear.
    (["--set", "dataserver.replicaCount=2"], "config.replicas is 3, but there are 2 data servers"),
    (["--set", "config.replicas=5"], "set as many data servers, or fewer copies"),
    (["--set", "config.writeQuorum=1"], "config.writeQuorum is 1: with config.replicas 3 it is from 2, more than half, to 3"),
    (["--set", "config.writeQuorum=4,dataserver.replicaCount=5"], "config.writeQuorum is 4"),
    (["--set", "config.writeQuorum=6"], "writeQuorum"),
    (["--set", "config.writeQuorum=3,dataserver.replicaCount=4,dataserver.podDisruptionBudget.maxUnavailable=2"], "with config.replicas 3 and config.writeQuorum 3 only 1 may be away"),
    (["--set", "dataserver.podDisruptionBudget.maxUnavailable=2"], "with config.replicas 3 only 1 may be away"),
    (["--set", "config.replicas=2,dataserver.replicaCount=2,dataserver.podDisruptionBudget.maxUnavailable=2"], "with config.replicas 2 only 1 may be away"),
    (["--set", "config.replicas=4,dataserver.replicaCount=4,dataserver.podDisruptionBudget.maxUnavailable=2"], "with config.replicas 4 only 1 may be away"),
    (["--set", "dataserver.podDisruptionBudget.maxUnavailable=34%"], "(34%) lets 2 data servers be evicted at once"),
    # Variables that other parts of the chart depend on.
    (["--set", "api.extraEnv[0].name=SHUTDOWN_DELAY,api.extraEnv[0].value=1m"], "set config.shutdownDelay instead"),
    (["--set", "dataserver.extraEnv[0].name=STORAGE_ROOT,dataserver.extraEnv[0].value=/tmp"], "it must be the data volume"),
    (["--set-json", 'dataserver.extraEnv=[{"name":"INITIAL_MEMBERS","value":"9"}]'], "set dataserver.initialMembers instead"),
    # The rest.
    (["--set", "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true"], "scrape every pod twice"),
    (["--set", "api.autoscaling.enabled=true,api.autoscaling.minReplicas=11"], "is above maxReplicas"),
    (["--set", "rabbitmq.resources.limits.memory=1.5Gi"], "whole number with Mi or Gi"),
]


def check_refusals(failures):
    runs = together(lambda one: helm("4", "template", "store", CHART, *one[0]), REFUSED)
    for (arguments, phrase), ran in zip(REFUSED, runs):
        failures.check(ran.returncode != 0, f"not refused: {' '.join(arguments)}")
        said = " ".join(ran.stderr.split())
        failures.check(ran.returncode == 0 or phrase in said, f"{' '.join(arguments)}: refused without saying {phrase!r}: {said}")
