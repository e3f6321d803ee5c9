variable "model_uuid" {
  description = "UUID of the model to deploy to"
  type        = string
}

variable "app_name" {
  description = "Name of the application; it begins the names of images"
  type        = string
  default     = "imagewright"
}

variable "units" {
  description = "Number of workers; more than one needs a relation amqp"
  type        = number
  default     = 1

  validation {
    condition     = var.units >= 1
    error_message = "units must be 1 or more."
  }
}

variable "config" {
  description = "Options of the charm, see docs/charm/reference.md"
  type        = map(string)
  default     = {}
}

variable "constraints" {
  description = "Constraints of the machines"
  type        = string
  default     = "arch=amd64"
}

variable "base" {
  description = "Base of the machines"
  type        = string
  default     = "ubuntu@24.04"
}

variable "channel" {
  description = "Channel of the charm"
  type        = string
  default     = "latest/edge"
}

variable "revision" {
  description = "Revision of the charm; the newest of the channel when not said"
  type        = number
  default     = null
}
