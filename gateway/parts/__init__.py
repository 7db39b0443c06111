"""What a gateway is put together from; `gateway.compose` joins them."""
