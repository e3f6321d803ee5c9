# The runner agent: exactly the version that the build resolved, with the digest that came with it.
if [[ -z ${RUNNER_URL} ]]; then exit 0; fi

folder=${ROOT}/home/ubuntu/actions-runner
archive=${WORK}/runner.tar.gz
fetch "${RUNNER_URL}" "${RUNNER_SHA256}" "${archive}"
install --directory "${folder}"
tar --extract --gzip --no-same-owner --file="${archive}" --directory="${folder}"
rm "${archive}"
if [[ ! -x ${folder}/config.sh ]]; then
  echo "the archive of the runner agent has no config.sh" >&2
  exit 1
fi
# Packages that the agent needs; the list is part of the archive. armhf's are in 30-armhf.sh.
if [[ ${ARCH} != armhf ]]; then "${folder}/bin/installdependencies.sh"; fi
chown --recursive ubuntu:ubuntu "${folder}"
