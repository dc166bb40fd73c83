package webitel

import (
	"encoding/json"
	"strconv"
	"strings"
)

// DecodeMap is [Decode] by encoding/json into a map: the obvious way, and so the
// peer that the scanner is measured against and must agree with on every frame.
// It differs only in what it says of bytes that are no frame.
func DecodeMap(b []byte) (Frame, error) {
	var members map[string]any
	if err := json.Unmarshal(b, &members); err != nil {
		return Frame{}, &DecodeError{Size: len(b), fault: faultSyntax}
	}
	f := Frame{raw: make([]byte, 0, 1024)}
	for name, v := range members {
		if strings.HasPrefix(name, "variable_") {
			f.vars = true
		}
		h := headers[name]
		if h == hNone || v == nil {
			continue
		}
		from := len(f.raw)
		if h == hExecResponse {
			text, err := json.Marshal(v)
			if err != nil {
				return Frame{}, &DecodeError{Size: len(b), fault: faultSyntax}
			}
			f.raw = append(f.raw, text...)
		} else if list, ok := v.([]any); ok {
			if len(list) == 0 {
				continue
			}
			for _, e := range list {
				switch e.(type) {
				case []any, map[string]any:
					return Frame{}, &DecodeError{Header: name, Size: len(b), fault: faultType}
				}
			}
			v = list[0]
			if h == hTransferHistory {
				v = list[len(list)-1]
			}
		}
		if h != hExecResponse {
			switch v := v.(type) {
			case string:
				f.raw = append(f.raw, v...)
			case float64:
				f.raw = strconv.AppendFloat(f.raw, v, 'f', -1, 64)
			case bool:
				f.raw = strconv.AppendBool(f.raw, v)
			case nil:
				continue
			default:
				return Frame{}, &DecodeError{Header: name, Size: len(b), fault: faultType}
			}
		}
		f.at[h] = span{uint32(from), uint32(len(f.raw)), plain}
	}
	if !f.classify() {
		return Frame{}, &DecodeError{Size: len(b), fault: faultKind}
	}
	return f, nil
}
