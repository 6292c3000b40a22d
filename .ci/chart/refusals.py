"""Values that must be refused, each with what the refusal must say."""

from rendering import CHART, helm, together

EXTERNAL = ["--set", "rabbitmq.enabled=false"]
# Durations that nothing can be done with when they are 0, in every unit.
ZERO = zip(("heartbeatInterval", "heartbeatExpiry", "locateTimeout", "shutdownTimeout", "headerTimeout", "bodyTimeout"), ("ms", "s", "m", "h", "d", "s"))
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
    (["--set", "config.locateTimeout=20s,config.shutdownTimeout=2m"], "config.locateTimeout is 20s, but two lookups and a write (2 x config.locateTimeout + 20s) must take less than the 60s"),
    (["--set", "config.shutdownTimeout=22s"], "config.shutdownTimeout is 22s, but two lookups and a write may take 22000 ms"),
    (["--set", "config.locateTimeout=5s"], "config.shutdownTimeout is 30s, but two lookups and a write may take 30000 ms"),
    (["--set", "dataserver.repairDelay=10s"], "dataserver.repairDelay (10s) must be longer than config.heartbeatExpiry (10s)"),
    (["--set", "dataserver.repairInterval=999ms"], "dataserver.repairInterval is 999ms: set 1s or more"),
    *((["--set", f"config.{name}=0{unit}"], f"config.{name} is 0{unit}, but must be longer than 0") for name, unit in ZERO),
    # Sizes that a volume cannot have.
    (["--set", "dataserver.compactionRateBytes=1023KiB"], "dataserver.compactionRateBytes is 1023KiB: set 1MiB or more"),
    (["--set", "dataserver.repairRateBytes=1048575"], "dataserver.repairRateBytes is 1048575: set 1MiB or more"),
    (["--set", "dataserver.segmentBytes=1023KiB"], "dataserver.segmentBytes is 1023KiB: set 1MiB to 2GiB"),
    (["--set", "dataserver.segmentBytes=2147483649"], "dataserver.segmentBytes is 2147483649: set 1MiB to 2GiB"),
    (["--set", "dataserver.inlineLimitBytes=16385KiB"], "dataserver.inlineLimitBytes is 16385KiB: set 16MiB or less"),
    (["--set", "dataserver.inlineLimitBytes=513KiB,dataserver.segmentBytes=1MiB"], "dataserver.inlineLimitBytes (513KiB) is more than half of dataserver.segmentBytes (1MiB)"),
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
# At the bounds, and what is of no unit or begins with a 0: taken.
TAKEN = [
    ["--set", "config.locateTimeout=4999ms"],
    ["--set", "config.locateTimeout=19999ms,config.shutdownTimeout=1m"],
    ["--set", "config.shutdownDelay=0s,dataserver.scrubInterval=0s"],
    ["--set", "config.heartbeatInterval=010s,config.heartbeatExpiry=20s,dataserver.repairDelay=20001ms,dataserver.repairInterval=1s"],
    ["--set", "dataserver.compactionRateBytes=1048576,dataserver.repairRateBytes=1024KiB"],
    ["--set", "dataserver.segmentBytes=2GiB,dataserver.inlineLimitBytes=16MiB"],
    ["--set", "dataserver.segmentBytes=1MiB,dataserver.inlineLimitBytes=512KiB"],
    ["--set", "dataserver.inlineLimitBytes=0,dataserver.repairRateBytes=1TiB"],
]


def check_refusals(failures):
    runs = together(lambda one: helm("4", "template", "store", CHART, *one[0]), REFUSED)
    for (arguments, phrase), ran in zip(REFUSED, runs):
        failures.check(ran.returncode != 0, f"not refused: {' '.join(arguments)}")
        said = " ".join(ran.stderr.split())
        failures.check(ran.returncode == 0 or phrase in said, f"{' '.join(arguments)}: refused without saying {phrase!r}: {said}")
    for arguments, ran in zip(TAKEN, together(lambda one: helm("4", "template", "store", CHART, *one), TAKEN)):
        failures.check(ran.returncode == 0, f"refused: {' '.join(arguments)}: {ran.stderr}")
