output "app_name" {
  description = "Name of the application"
  value       = juju_application.imagewright.name
}

output "provides" {
  description = "Endpoints that others use"
  value       = { image = "image", cos_agent = "cos-agent" }
}

output "requires" {
  description = "Endpoints that need another application"
  value       = { amqp = "amqp", charm_tracing = "charm-tracing", receive_ca_cert = "receive-ca-cert" }
}
