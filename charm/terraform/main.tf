resource "juju_application" "imagewright" {
  name        = var.app_name
  model_uuid  = var.model_uuid
  units       = var.units
  config      = var.config
  constraints = var.constraints

  charm {
    name     = "imagewright"
    base     = var.base
    channel  = var.channel
    revision = var.revision
  }
}
