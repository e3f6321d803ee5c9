# What must not run on a machine that lives for one job. A unit that a release does not have is no error.
read -r -a units <<< "${DISABLED_SERVICES}"
for unit in "${units[@]}"; do
  if systemctl cat "${unit}" > /dev/null 2>&1; then
    systemctl disable --now "${unit}"
    systemctl mask "${unit}"
  fi
done
