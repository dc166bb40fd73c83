// Package verto is a web phone without a browser: it signs in to FreeSWITCH's
// mod_verto over a WebSocket (gorilla/websocket) and carries the media of its
// calls itself (pion/webrtc). It is for accounts whose phone is the web phone.
package verto
