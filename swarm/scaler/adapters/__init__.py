"""The scaler's ports over Flower, systemd, SSH and Prometheus."""
